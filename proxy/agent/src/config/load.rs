//! Puts flags and file together (contract CFG-5).

use std::path::Path;

use super::file::ConfigFile;
use super::flags::Given;
use super::settings::Settings;

/// A configuration that is valid.
pub(crate) struct Loaded {
    /// What the program runs with.
    pub(crate) settings: Settings,
    /// The file, if there is one.
    pub(crate) file: Option<ConfigFile>,
    /// What is probably not intended, one sentence each.
    pub(crate) warnings: Vec<String>,
}

/// Reads the file that the flags name, if they name one, and makes the settings.
///
/// # Errors
/// All that is wrong, one sentence each.
pub(crate) fn load(given: &Given) -> Result<Loaded, Vec<String>> {
    let mut warnings = given.deprecated();
    let file = match given.config.as_deref().filter(|path| !path.is_empty()) {
        Some(path) => Some(ConfigFile::read(Path::new(path))?),
        None => None,
    };
    let (documents, in_force) = match &file {
        Some(file) => {
            warnings.extend(file.warnings.iter().cloned());
            let overridden = given.overridden();
            if !overridden.is_empty() {
                warnings.push(format!("--config overrides these flags: {}", overridden.join(", ")));
            }
            let beside = given.beside(&file.documents);
            (beside.documents.clone(), beside)
        }
        None => (given.alone(), given.clone()),
    };
    let resolved = Settings::resolve(&documents).map_err(|problems| match &file {
        None => in_force.describe_all(&problems),
        Some(file) => {
            let (of_flags, of_file): (Vec<_>, Vec<_>) =
                problems.0.into_iter().partition(|invalid| in_force.set(invalid));
            let mut sentences = given.malformed().to_vec();
            sentences.extend(file.describe(&of_file));
            sentences.extend(of_flags.iter().map(|invalid| in_force.describe(invalid)));
            sentences
        }
    });
    // A value of the wrong form is an error whether it counts or not.
    let settings = match resolved {
        Ok(_) if !given.malformed().is_empty() => return Err(given.malformed().to_vec()),
        resolved => resolved?,
    };
    warnings.extend(settings.warnings());
    Ok(Loaded { settings, file, warnings })
}
