//! What object a document is that cannot be parsed, as far as its lines show.

/// The identity of an object, read without a parser.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) api_version: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

impl Outline {
    /// Reads the lines of a YAML document in block style. Nothing if a field is there twice: then the document may hold
    /// several objects.
    pub(super) fn of(text: &str) -> Option<Self> {
        let mut outline = Self::default();
        let mut metadata = false;
        let mut indent = None;
        for line in text.lines() {
            let content = line.trim_start();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let depth = line.len() - content.len();
            let Some((key, value)) = content.split_once(':') else { continue };
            if depth == 0 {
                if metadata && key == "metadata" {
                    return None;
                }
                match key {
                    "apiVersion" => set(&mut outline.api_version, value)?,
                    "kind" => set(&mut outline.kind, value)?,
                    _ => {}
                }
                indent = (key == "metadata").then_some(None);
                metadata |= key == "metadata";
                continue;
            }
            let Some(indent) = &mut indent else { continue };
            if *indent.get_or_insert(depth) == depth {
                match key {
                    "name" => set(&mut outline.name, value)?,
                    "namespace" => set(&mut outline.namespace, value)?,
                    _ => {}
                }
            }
        }
        Some(outline)
    }
}

/// Keeps a scalar. Nothing if there is one already.
fn set(field: &mut Option<String>, value: &str) -> Option<()> {
    let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    match field {
        Some(_) => None,
        None => {
            *field = Some(value.to_owned()).filter(|value| !value.is_empty());
            Some(())
        }
    }
}
