//! What is wrong with a value: collected, so that all of it is told at once.

/// A value that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// The path of the field in kube-proxy's file, such as `iptables.masqueradeBit`, or in portway's document, such as
    /// `portway.iptablesDispatch`.
    pub(crate) path: String,
    /// The value as text.
    pub(crate) value: String,
    /// What is wrong with it, without path and value.
    pub(crate) reason: String,
}

/// All values that are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Problems(pub(crate) Vec<Invalid>);

impl Problems {
    /// Adds a refused value.
    pub(crate) fn add(&mut self, path: &str, value: impl ToString, reason: impl Into<String>) {
        self.0.push(Invalid { path: path.to_owned(), value: value.to_string(), reason: reason.into() });
    }

    /// The value of a result; an error is added.
    pub(crate) fn take<T>(&mut self, path: &str, value: impl ToString, result: Result<T, String>) -> Option<T> {
        result.map_err(|reason| self.add(path, value, reason)).ok()
    }
}
