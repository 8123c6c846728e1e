//! The environment: its variables, the files they name, and slips of the pen in their names.

use std::env::VarError;

use super::ConfigError;

/// A setting, and how configuration files and the environment call it.
///
/// `setting` is the word of the builder that refuses it, or the field's own where there is none.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) setting: &'static str,
    pub(crate) field: &'static str,
    pub(crate) variable: &'static str,
}

impl Name {
    pub(crate) const fn new(
        setting: &'static str,
        field: &'static str,
        variable: &'static str,
    ) -> Self {
        Self { setting, field, variable }
    }
}

/// The error with the name of the setting that the operator wrote.
pub(crate) fn in_words(names: &[Name], is_from_env: bool, error: ConfigError) -> ConfigError {
    match names.iter().find(|name| name.setting == error.setting()) {
        Some(name) if is_from_env => error.renamed(name.variable),
        Some(name) => error.renamed(name.field),
        None => error,
    }
}

/// The environment variables, or what a test takes for them.
pub(crate) struct Vars<'a> {
    find: &'a dyn Fn(&str) -> Result<Option<String>, VarError>,
    /// The names of all that are set, as far as they are Unicode.
    set: Vec<String>,
}

impl Vars<'static> {
    pub(crate) fn of_process() -> Self {
        let find = &|name: &str| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(None),
            Err(error) => Err(error),
        };
        Self {
            find,
            set: std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect(),
        }
    }
}

#[cfg(test)]
impl<'a> Vars<'a> {
    pub(crate) fn new(
        find: &'a dyn Fn(&str) -> Result<Option<String>, VarError>,
        set: &[&str],
    ) -> Self {
        Self { find, set: set.iter().map(|name| (*name).into()).collect() }
    }

    /// What `read` makes of these variables.
    pub(crate) fn with<T>(vars: &[(&str, &str)], read: impl FnOnce(&Vars<'_>) -> T) -> T {
        let find = |name: &str| {
            Ok(vars.iter().rfind(|(known, _)| *known == name).map(|(_, value)| (*value).into()))
        };
        let set: Vec<_> = vars.iter().map(|(name, _)| *name).collect();
        read(&Vars::new(&find, &set))
    }
}

impl Vars<'_> {
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        // The cause is dropped: it quotes the value.
        let value = (self.find)(name).map_err(|_| ConfigError::new(name, "is not Unicode"))?;
        if value.as_ref().is_some_and(String::is_empty) {
            return Err(ConfigError::new(
                name,
                "is set and empty; give it a value or do not set it",
            ));
        }
        Ok(value)
    }

    /// Words between commas and spaces.
    pub(crate) fn list(&self, name: &'static str) -> Result<Vec<String>, ConfigError> {
        let text = self.text(name)?.unwrap_or_default();
        let words = text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty());
        Ok(words.map(Into::into).collect())
    }

    /// Words of the form `name=value`, none of them empty, no name twice.
    pub(crate) fn pairs<C>(&self, name: &'static str) -> Result<C, ConfigError>
    where
        C: FromIterator<(String, String)>,
    {
        let words = self.list(name)?;
        let mut pairs = Vec::with_capacity(words.len());
        for word in &words {
            match word.split_once('=') {
                Some((one, other)) if !one.is_empty() && !other.is_empty() => {
                    pairs.push((one, other));
                }
                _ => {
                    return Err(ConfigError::new(
                        name,
                        "is not a list of `name=value`, such as `tenant=claim`",
                    ));
                }
            }
        }
        pairs.sort_unstable();
        if pairs.windows(2).any(|two| matches!(two, [(one, _), (other, _)] if one == other)) {
            return Err(ConfigError::new(name, "has a name twice; leave one out"));
        }
        Ok(pairs.into_iter().map(|(one, other)| (one.into(), other.into())).collect())
    }

    pub(crate) fn number<N: TryFrom<u64>>(
        &self,
        name: &'static str,
    ) -> Result<Option<N>, ConfigError> {
        let parse = |text: String| {
            let number: u64 = text
                .parse()
                .map_err(|_| ConfigError::new(name, "is not a whole number, such as 60"))?;
            N::try_from(number).map_err(|_| ConfigError::new(name, "is too large"))
        };
        self.text(name)?.map(parse).transpose()
    }

    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, ConfigError> {
        match self.text(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ConfigError::new(name, "is neither `true` nor `false`")),
        }
    }

    /// Reports a variable that looks like one of these and is not, while that one is not set.
    ///
    /// Other programs have variables that begin like ours, so what is merely unknown is nobody's
    /// business.
    pub(crate) fn refuse_slips(&self, names: &[Name]) -> Result<(), ConfigError> {
        let is_set = |name: &str| self.set.iter().any(|set| set == name);
        for name in names {
            let known = name.variable;
            if is_set(known) {
                continue;
            }
            if let Some(slip) = self.set.iter().find(|set| looks_like(set, known)) {
                // Not if it is another of ours that is meant.
                if names.iter().all(|other| other.variable != slip) {
                    let problem = format!(
                        "is not set, but `{slip}` is; correct its name, or rename it if it is for \
                         another program"
                    );
                    return Err(ConfigError::new(known, problem));
                }
            }
        }
        Ok(())
    }
}

/// The text itself, or the content of the file without the line break at its end.
pub(crate) fn file_or_text(
    file_setting: &'static str,
    text: Option<&str>,
    file: Option<&str>,
) -> Result<Option<String>, ConfigError> {
    let (None, Some(path)) = (text, file) else { return Ok(text.map(Into::into)) };
    let mut text = std::fs::read_to_string(path).map_err(|error| {
        let problem = format!("names {path}, which cannot be read as text");
        ConfigError::new(file_setting, problem).with_source(error)
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(Some(text))
}

/// Two slips away, or without the unit.
fn looks_like(name: &str, known: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let unit = known.strip_prefix(&*name);
    matches!(unit, Some("_SECS" | "_MS" | "_BYTES"))
        || is_within(2, name.as_bytes(), known.as_bytes())
}

/// Whether no more letters were added, left out, mistaken or swapped with their neighbour.
fn is_within(slips: usize, one: &[u8], other: &[u8]) -> bool {
    match (one, other) {
        ([], rest) | (rest, []) => rest.len() <= slips,
        ([a, one @ ..], [b, other @ ..]) if a == b => is_within(slips, one, other),
        _ if slips == 0 => false,
        ([a, one_rest @ ..], [b, other_rest @ ..]) => {
            is_within(slips - 1, one_rest, other)
                || is_within(slips - 1, one, other_rest)
                || is_within(slips - 1, one_rest, other_rest)
                || match (one_rest, other_rest) {
                    ([c, one @ ..], [d, other @ ..]) => {
                        a == d && b == c && is_within(slips - 1, one, other)
                    }
                    _ => false,
                }
        }
    }
}

/// Holds the names in the code, in the documentation and in what `serde` knows together.
#[cfg(test)]
pub(crate) mod docs {
    use std::collections::BTreeSet;

    use serde::de::DeserializeOwned;

    use super::{Name, looks_like};

    const DOCUMENT: &str = include_str!("../../docs/configuration.md");

    /// The first two cells of the rows of tables, without their quotes.
    fn rows(text: &str) -> BTreeSet<(String, String)> {
        let rows = text.lines().map(|line| line.trim_start_matches('/').trim_start());
        let rows = rows.filter_map(|line| line.strip_prefix("| `"));
        let pairs = rows.flat_map(|row| {
            let cells: Vec<_> =
                row.split('|').map(|cell| cell.replace(['`', ' '], "")).take(2).collect();
            let cell = |at: usize| cells.get(at).map_or("", |cell| &**cell);
            let pairs = cell(0).split(',').zip(cell(1).split(','));
            pairs
                .map(|(variable, field)| (variable.to_owned(), field.to_owned()))
                .collect::<Vec<_>>()
        });
        pairs
            .filter(|(variable, _)| variable.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
            .collect()
    }

    /// `source` is the file in which `T` is documented, `section` its heading in
    /// docs/configuration.md.
    #[track_caller]
    pub(crate) fn assert_complete<T: DeserializeOwned>(
        names: &[Name],
        source: &str,
        section: &str,
    ) {
        let known: BTreeSet<_> =
            names.iter().map(|name| (name.variable.to_owned(), name.field.to_owned())).collect();
        assert_eq!(known.len(), names.len(), "a name stands there twice");
        let docs = source.split("#[derive").next().unwrap();
        assert_eq!(rows(docs), known, "the table in the documentation of the type");
        let section = DOCUMENT.split("\n## ").find(|text| text.starts_with(section)).unwrap();
        assert_eq!(rows(section), known, "the table in docs/configuration.md");

        let error = serde_json::from_str::<T>(r#"{"?": 1}"#).err().unwrap().to_string();
        let fields: BTreeSet<_> = error.split('`').skip(3).step_by(2).map(str::to_owned).collect();
        assert_eq!(
            fields,
            known.into_iter().map(|(_, field)| field).collect(),
            "the fields: {error}"
        );
    }

    /// Every setter of a builder, found by its name in `source`, has a field or a reason why it has
    /// none.
    #[track_caller]
    pub(crate) fn assert_settable(names: &[Name], source: &str, setters: &[(&str, Setter)]) {
        let found: BTreeSet<_> = source
            .split("pub fn ")
            .skip(1)
            .map(|rest| rest.split(['(', '<']).next().unwrap())
            .filter(|name| {
                ["with_", "without_", "allow_"].iter().any(|prefix| name.starts_with(prefix))
            })
            .collect();
        for setter in found {
            let is_known = setters.iter().any(|(name, _)| *name == setter);
            assert!(is_known, "{setter} has neither a field nor a reason why it has none");
        }
        for (setter, how) in setters {
            match how {
                Setter::Field(field) => {
                    assert!(
                        names.iter().any(|name| name.field == *field),
                        "{setter}: there is no {field}"
                    );
                }
                Setter::InCode(reason) => assert!(reason.len() > 10, "{setter}"),
            }
        }
    }

    /// How a setter of a builder is reached from a configuration.
    pub(crate) enum Setter {
        Field(&'static str),
        /// Only from code, for this reason.
        InCode(&'static str),
    }

    /// Else the name of one would be taken for a slip of the pen in another.
    #[test]
    fn no_two_variables_look_alike_but_in_one_table() {
        let sections: Vec<_> = DOCUMENT.split("\n## ").map(rows).collect();
        assert!(sections.iter().map(BTreeSet::len).sum::<usize>() > 40, "{sections:?}");
        for (at, section) in sections.iter().enumerate() {
            for other in sections.iter().skip(at + 1) {
                for (one, _) in section {
                    let alike = other
                        .iter()
                        .find(|(other, _)| looks_like(other, one) || looks_like(one, other));
                    assert!(alike.is_none(), "{one} and {alike:?}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [Name; 2] = [
        Name::new("issuer", "issuers", "JWT_ISSUERS"),
        Name::new("leeway", "leeway_secs", "JWT_LEEWAY_SECS"),
    ];

    #[test]
    fn slips_of_the_pen_are_reported_and_nothing_else() {
        let check = |set: &[&str]| {
            let set: Vec<_> = set.iter().map(|name| (*name, "1")).collect();
            Vars::with(&set, |vars| vars.refuse_slips(&NAMES)).map_err(|error| error.to_string())
        };
        for slip in [
            "JWT_ISSUER",
            "JWT_ISSEURS",
            "JWT_ISUERS",
            "jwt_issuers",
            "JTW_ISSUERS",
            "JWT_ISSUER_S",
        ] {
            let error = check(&["PATH", slip]).unwrap_err();
            assert!(
                error.starts_with("JWT_ISSUERS: is not set, but") && error.contains(slip),
                "{error}"
            );
        }
        for slip in ["JWT_LEEWAY", "JWT_LEEWAY_SEC", "JWT_LEEWAY_SECONDS"] {
            let found = check(&[slip]);
            assert_eq!(found.is_err(), slip != "JWT_LEEWAY_SECONDS", "{slip}");
        }
        // Whoever has the right one has the other for something else.
        check(&["JWT_ISSUERS", "JWT_ISSUER"]).unwrap();
        check(&["JWT_ISSUERS", "JWT_LEEWAY_SECS"]).unwrap();
        check(&["JWT_EXPIRY", "JWT_PRIVATE_KEY", "HOME", ""]).unwrap();
    }

    #[test]
    fn pairs_are_names_and_values() {
        let pairs = |text: &str| {
            Vars::with(&[("X", text)], |vars| vars.pairs::<Vec<_>>("X"))
                .map_err(|error| error.to_string())
        };
        let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        assert_eq!(
            pairs("tenant=claim, sid=none").unwrap(),
            [pair("sid", "none"), pair("tenant", "claim")]
        );
        for wrong in ["tenant", "=claim", "tenant=", "a=1 b"] {
            assert!(pairs(wrong).unwrap_err().contains("such as `tenant=claim`"), "{wrong}");
        }
        assert!(pairs("a=1 a=2").unwrap_err().contains("twice"));
    }

    #[test]
    fn numbers_must_fit() {
        let number = |text: &str| Vars::with(&[("X", text)], |vars| vars.number::<u16>("X"));
        assert_eq!(number("65535").unwrap(), Some(65535));
        assert_eq!(number("65536").unwrap_err().to_string(), "X: is too large");
        assert_eq!(number("-1").unwrap_err().to_string(), "X: is not a whole number, such as 60");
    }
}
