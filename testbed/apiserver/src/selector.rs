//! Label and field selectors, parsed once for each request.

use std::collections::BTreeMap;

use crate::error::ApiError;
use crate::resource::Resource;

/// The label and field selector of a list or watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

/// One condition on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl Selector {
    /// Parses the two query parameters. Empty text selects everything.
    pub(crate) fn parse(resource: Resource, labels: &str, fields: &str) -> Result<Self, ApiError> {
        let labels = terms(labels).map(label_requirement).collect::<Result<_, _>>()?;
        let fields = terms(fields).map(|term| field_requirement(resource, term)).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// Whether the selector selects all objects.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object with these labels and fields matches. A field that an object lacks counts as empty.
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>, field: impl Fn(&str) -> String) -> bool {
        self.labels.iter().all(|requirement| requirement.test.holds(labels.get(&requirement.key).map(String::as_str)))
            && self.fields.iter().all(|requirement| requirement.test.holds(Some(&field(&requirement.key))))
    }
}

impl Test {
    /// Whether a value meets the condition. A label that is absent is in no set, so `!=` and `notin` hold for it.
    fn holds(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Test::Exists, value) => value.is_some(),
            (Test::Absent, value) => value.is_none(),
            (Test::In(_), None) => false,
            (Test::NotIn(_), None) => true,
            (Test::In(set), Some(value)) => set.iter().any(|one| one == value),
            (Test::NotIn(set), Some(value)) => set.iter().all(|one| one != value),
        }
    }
}

/// Splits at commas outside parentheses.
fn terms(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0usize;
    text.split(move |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
}

fn label_requirement(term: &str) -> Result<Requirement, ApiError> {
    if let Some(key) = term.strip_prefix('!') {
        return requirement(term, key, Test::Absent);
    }
    if let Some((key, value)) = term.split_once("!=") {
        return requirement(term, key, Test::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return requirement(term, key, Test::In(vec![value.trim().to_owned()]));
    }
    if let Some((head, set)) = term.split_once('(') {
        let set = set.strip_suffix(')').ok_or_else(|| unreadable(term))?;
        let set = set.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace).ok_or_else(|| unreadable(term))?;
        return match operator {
            "in" => requirement(term, key, Test::In(set)),
            "notin" => requirement(term, key, Test::NotIn(set)),
            _ => Err(unreadable(term)),
        };
    }
    requirement(term, term, Test::Exists)
}

fn field_requirement(resource: Resource, term: &str) -> Result<Requirement, ApiError> {
    let found = if let Some((key, value)) = term.split_once("!=") {
        requirement(term, key, Test::NotIn(vec![value.trim().to_owned()]))?
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        requirement(term, key, Test::In(vec![value.trim().to_owned()]))?
    } else {
        return Err(ApiError::bad_request(format!("invalid selector: '{term}'; can't understand '{term}'")));
    };
    let known = match found.key.as_str() {
        "metadata.name" => true,
        "metadata.namespace" => resource.namespaced(),
        key => resource.selectable().contains(&key),
    };
    if known { Ok(found) } else { Err(ApiError::bad_request(format!("field label not supported: {}", found.key))) }
}

fn requirement(term: &str, key: &str, test: Test) -> Result<Requirement, ApiError> {
    let key = key.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if key.is_empty() || !key.chars().all(plain) {
        return Err(unreadable(term));
    }
    Ok(Requirement { key: key.to_owned(), test })
}

fn unreadable(term: &str) -> ApiError {
    ApiError::bad_request(format!("unable to parse requirement: found '{term}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn label_selectors_match_as_in_kubernetes() {
        let with = labels(&[("app", "web"), ("tier", "front")]);
        let without = labels(&[]);
        for (selector, first, second) in [
            ("", true, true),
            ("app", true, false),
            ("!app", false, true),
            ("app=web", true, false),
            ("app==web", true, false),
            ("app=db", false, false),
            ("app!=web", false, true),
            ("app!=db", true, true),
            ("app in (db, web)", true, false),
            ("app notin (db,web)", false, true),
            ("app in (db,web),tier=front", true, false),
            ("app,!tier", false, false),
        ] {
            let parsed = Selector::parse(Resource::Service, selector, "").expect(selector);
            assert_eq!(parsed.matches(&with, |_| String::new()), first, "{selector} with labels");
            assert_eq!(parsed.matches(&without, |_| String::new()), second, "{selector} without labels");
        }
    }

    #[test]
    fn field_selectors_take_only_the_fields_of_their_kind() {
        let parse = |fields| Selector::parse(Resource::Service, "", fields);
        let headless = parse("spec.clusterIP!=None").expect("selector");
        assert!(!headless.matches(&labels(&[]), |_| "None".to_owned()));
        assert!(headless.matches(&labels(&[]), |_| "10.96.0.1".to_owned()));
        assert!(parse("spec.clusterIP").is_err());
        assert_eq!(
            parse("spec.nodeName=x").expect_err("unknown field").message,
            "field label not supported: spec.nodeName"
        );
        assert!(Selector::parse(Resource::Node, "", "metadata.namespace=x").is_err(), "nodes have no namespace");
    }

    #[test]
    fn unreadable_selectors_are_refused() {
        for selector in ["a b", "in (x)", "a in (x", "!", "=x", "a of (x)"] {
            let error = Selector::parse(Resource::Service, selector, "").expect_err(selector);
            assert_eq!(error.code, 400, "{selector}");
        }
    }
}
