//! Writes a configuration as a file that `--config` reads (contract CFG-6).

use serde::Serialize;

use super::settings::Documents;

impl Documents {
    /// Both documents as YAML, with their fields sorted, as kube-proxy writes them.
    ///
    /// # Errors
    /// If a value cannot be written as YAML.
    pub(crate) fn to_yaml(&self) -> Result<String, String> {
        Ok(format!("{}---\n{}", yaml(&self.kube_proxy)?, yaml(&self.portway)?))
    }
}

fn yaml(document: &impl Serialize) -> Result<String, String> {
    let sorted = serde_json::to_value(document).map_err(|error| error.to_string())?;
    let mut text = serde_saphyr::to_string(&sorted).map_err(|error| error.to_string())?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
