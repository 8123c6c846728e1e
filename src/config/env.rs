//! Reads the settings of a struct from environment variables, through `serde`.
//!
//! The fields of the struct are the one list of settings: the `Deserialize` that `serde` derives
//! hands their names over, and each name says which variable to read. The same `Deserialize` reads
//! configuration files, so both forms have the same fields, types and words.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::num::IntErrorKind;

use serde::de::value::{self, MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeOwned, Deserializer, Error as _, Expected, IntoDeserializer, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::ConfigError;

/// A struct of settings. It derives `Deserialize`, and every field has a default.
pub(crate) trait Configuration: DeserializeOwned {
    /// What the name of a field is preceded by, in capitals, in the name of its variable.
    fn variable_prefix(field: &str) -> &'static str;

    /// The field behind a setting of a builder. Most have the same name.
    fn field_of(setting: &str) -> &str;

    /// The name of the variable of this field.
    fn variable(field: &str) -> String {
        Self::variable_prefix(field).to_owned() + &field.to_ascii_uppercase()
    }

    /// The names of all fields, in their order.
    fn fields() -> &'static [&'static str] {
        let fields = Cell::default();
        // It always fails, after it has left the names.
        let _ = Self::deserialize(FieldNames(&fields));
        fields.get()
    }
}

/// Where a configuration was read, and therefore what its settings are called in errors.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum ConfigOrigin {
    /// A file. Settings are called by their fields.
    #[default]
    File,
    /// The environment. Settings are called by their variables.
    Environment,
}

impl ConfigOrigin {
    /// What a setting of a builder is called where `C` was read.
    pub(crate) fn name<C: Configuration>(self, setting: &str) -> String {
        let field = C::field_of(setting);
        match self {
            Self::Environment if C::fields().contains(&field) => C::variable(field),
            Self::Environment | Self::File => field.to_owned(),
        }
    }

    /// The error of a builder, with the name that the setting has where `C` was read.
    pub(crate) fn rename<C: Configuration>(self, error: ConfigError) -> ConfigError {
        let name = self.name::<C>(error.setting());
        error.renamed(name)
    }
}

/// Environment variables: those of the process, or those of a test.
pub(crate) struct EnvVars(BTreeMap<String, OsString>);

impl EnvVars {
    pub(crate) fn of_process() -> Self {
        // Names that are not Unicode are not ours.
        let vars = std::env::vars_os();
        Self(vars.filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect())
    }

    /// The settings whose variables are set. The others have their defaults.
    pub(crate) fn read<C: Configuration>(&self) -> Result<C, ConfigError> {
        let fields = C::fields().iter().map(|field| (*field, C::variable(field)));
        let names: Vec<_> = fields.clone().map(|(_, variable)| variable).collect();
        self.refuse_misspelt(&names)?;
        let mut set = Vec::new();
        for (field, variable) in fields {
            if let Some(text) = self.text(&variable)? {
                set.push((field, variable, text));
            }
        }
        // An error is about the last one that was taken.
        let current = Cell::new("");
        let settings = set.iter().map(|(field, variable, text)| {
            current.set(variable);
            (*field, VariableText(text))
        });
        C::deserialize(MapDeserializer::new(settings))
            .map_err(|VariableError(problem)| ConfigError::new(current.get().to_owned(), problem))
    }

    fn text(&self, variable: &str) -> Result<Option<String>, ConfigError> {
        let wrong = |problem| Err(ConfigError::new(variable.to_owned(), problem));
        match self.0.get(variable).map(|value| value.to_str()) {
            // The cause would quote the value.
            Some(None) => wrong("is not Unicode; write it anew"),
            Some(Some("")) => wrong("is set and empty; give it a value or do not set it"),
            text => Ok(text.flatten().map(Into::into)),
        }
    }

    /// Refuses a variable that is not one of these and is almost called like one that is not set.
    ///
    /// What is merely unknown is accepted: other programs have variables that begin like ours.
    fn refuse_misspelt(&self, names: &[String]) -> Result<(), ConfigError> {
        for name in names.iter().filter(|name| !self.0.contains_key(*name)) {
            let misspelt = self.0.keys().find(|set| is_like(set, name) && !names.contains(set));
            if let Some(misspelt) = misspelt {
                let problem = format!(
                    "is not set, but `{misspelt}` is; correct its name, or rename it if it is for \
                     another program"
                );
                return Err(ConfigError::new(name.clone(), problem));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for EnvVars {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(vars: I) -> Self {
        Self(vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Whether a name is that of a known one with one or two mistakes, or without its unit.
pub(super) fn is_like(name: &str, known: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let unit = known.strip_prefix(&*name);
    matches!(unit, Some("_SECS" | "_MS" | "_BYTES")) || strsim::osa_distance(&name, known) <= 2
}

// === For serde ===

/// Leaves the names of the fields of a struct, and reads nothing.
struct FieldNames<'a>(&'a Cell<&'static [&'static str]>);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        self.0.set(fields);
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        Err(value::Error::custom("nothing is read"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The text of a variable, or a part of it, as a value of the type that is asked for.
#[derive(Clone, Copy)]
struct VariableText<'a>(&'a str);

impl<'de> VariableText<'_> {
    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, VariableError> {
        match self.0.parse() {
            Ok(number) => visitor.visit_u64(number),
            Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
                Err(VariableError::custom("is too large"))
            }
            Err(_) => Err(VariableError::custom("is not a whole number, such as 60")),
        }
    }

    /// What stands between commas and white space.
    fn words(&self) -> impl Iterator<Item = &str> {
        self.0.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty())
    }
}

impl<'de> Deserializer<'de> for VariableText<'_> {
    type Error = VariableError;

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, VariableError> {
        self.number(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, VariableError> {
        self.number(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, VariableError> {
        self.number(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, VariableError> {
        match self.0.parse() {
            Ok(flag) => visitor.visit_bool(flag),
            Err(_) => Err(VariableError::custom("is neither `true` nor `false`")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, VariableError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, VariableError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, VariableError> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    /// Words.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, VariableError> {
        visitor.visit_seq(SeqDeserializer::new(self.words().map(VariableText)))
    }

    /// Words of the form `name=value`, none of them empty, no name twice.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, VariableError> {
        let mut pairs = BTreeMap::new();
        for word in self.words() {
            let (name, value) = word
                .split_once('=')
                .filter(|(name, value)| !name.is_empty() && !value.is_empty())
                .ok_or_else(|| {
                    VariableError::custom("is not a list of `name=value`, such as `tenant=claim`")
                })?;
            if pairs.insert(name, VariableText(value)).is_some() {
                return Err(VariableError::custom("has a name twice; leave one out"));
            }
        }
        visitor.visit_map(MapDeserializer::new(pairs.into_iter()))
    }

    /// Text.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, VariableError> {
        visitor.visit_str(self.0)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 u8 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct struct identifier ignored_any
    }
}

impl IntoDeserializer<'_, VariableError> for VariableText<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Why a variable cannot be read. It never quotes the value, which may be a secret.
#[derive(Debug)]
struct VariableError(String);

impl serde::de::Error for VariableError {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self(problem.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("is not {expected}"))
    }

    fn invalid_value(value: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match value {
            Unexpected::Unsigned(0) => Self::custom("is 0; write 1 or more, or leave it out"),
            Unexpected::Unsigned(_) => Self::custom("is too large"),
            _ => Self::invalid_type(value, expected),
        }
    }

    fn unknown_variant(_: &str, words: &'static [&'static str]) -> Self {
        let words = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let words = match words.rsplit_once(", ") {
            Some((others, last)) => format!("{others} or {last}"),
            None => words,
        };
        Self::custom(format_args!("is not a word that is known here; write {words}"))
    }
}

impl fmt::Display for VariableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for VariableError {}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::config::SecretText;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Example {
        issuers: Vec<String>,
        targets: BTreeMap<String, String>,
        leeway_secs: Option<u64>,
        shards: Option<u16>,
        replicas: Option<std::num::NonZeroU32>,
        secret: Option<SecretText>,
        mode: Option<Mode>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        AtOnce,
        Later,
    }

    impl Configuration for Example {
        fn variable_prefix(field: &str) -> &'static str {
            if field == "shards" { "REDIS_" } else { "JWT_" }
        }

        fn field_of(setting: &str) -> &str {
            if setting == "leeway" { "leeway_secs" } else { setting }
        }
    }

    fn read(vars: &[(&str, &str)]) -> Result<Example, ConfigError> {
        vars.iter().copied().collect::<EnvVars>().read()
    }

    #[track_caller]
    fn assert_refused(variable: &str, value: &str, problem: &str) {
        let error = read(&[(variable, value)]).unwrap_err();
        assert_eq!(error.to_string(), format!("{variable}: {problem}"));
    }

    #[test]
    fn the_fields_are_the_list_of_variables() {
        let names: Vec<_> =
            Example::fields().iter().map(|field| Example::variable(field)).collect();
        assert_eq!(names[..4], ["JWT_ISSUERS", "JWT_TARGETS", "JWT_LEEWAY_SECS", "REDIS_SHARDS"]);
        assert_eq!(names.len(), 7);
    }

    #[test]
    fn an_error_names_the_setting_as_it_was_written() {
        let renamed = |origin: ConfigOrigin, setting: &'static str| {
            origin.rename::<Example>(ConfigError::new(setting, "is wrong")).to_string()
        };
        let (file, environment) = (ConfigOrigin::File, ConfigOrigin::Environment);
        assert_eq!(renamed(file, "leeway"), "leeway_secs: is wrong");
        assert_eq!(renamed(environment, "leeway"), "JWT_LEEWAY_SECS: is wrong");
        assert_eq!(renamed(environment, "shards"), "REDIS_SHARDS: is wrong");
        assert_eq!(renamed(environment, "runtime"), "runtime: is wrong", "no field");
        let error = environment.rename::<Example>(ConfigError::new("leeway", "is wrong"));
        assert_eq!(environment.rename::<Example>(error).setting(), "JWT_LEEWAY_SECS", "twice");
    }

    #[test]
    fn misspelt_names_are_refused_and_foreign_ones_are_not() {
        let check = |set: &[&str]| {
            let vars: Vec<_> = set.iter().map(|name| (*name, "1")).collect();
            read(&vars).map_err(|error| error.to_string())
        };
        for misspelt in [
            "JWT_ISSUER",
            "JWT_ISSEURS",
            "JWT_ISUERS",
            "jwt_issuers",
            "JTW_ISSUERS",
            "JWT_ISSUER_S",
        ] {
            let error = check(&["PATH", misspelt]).unwrap_err();
            assert!(
                error.starts_with("JWT_ISSUERS: is not set, but") && error.contains(misspelt),
                "{error}"
            );
        }
        for misspelt in ["JWT_LEEWAY", "JWT_LEEWAY_SEC", "JWT_LEEWAY_SECONDS"] {
            let found = check(&[misspelt]);
            assert_eq!(found.is_err(), misspelt != "JWT_LEEWAY_SECONDS", "{misspelt}");
        }
        // With the right one set, the other is for something else.
        check(&["JWT_ISSUERS", "JWT_ISSUER"]).unwrap();
        check(&["JWT_ISSUERS", "JWT_LEEWAY_SECS"]).unwrap();
        check(&["JWT_EXPIRY", "JWT_PRIVATE_KEY", "HOME", ""]).unwrap();
    }

    #[test]
    fn lists_are_words_between_commas_and_white_space() {
        let config = read(&[("JWT_ISSUERS", " a, b\tc,\n,d ")]).unwrap();
        assert_eq!(config.issuers, ["a", "b", "c", "d"]);
    }

    #[test]
    fn maps_are_lists_of_names_and_values() {
        let config = read(&[("JWT_TARGETS", "tenant=claim, sid=none")]).unwrap();
        let pairs = [("sid", "none"), ("tenant", "claim")];
        assert_eq!(config.targets, pairs.map(|(one, other)| (one.into(), other.into())).into());
        for wrong in ["tenant", "=claim", "tenant=", "a=1 b"] {
            let problem = "is not a list of `name=value`, such as `tenant=claim`";
            assert_refused("JWT_TARGETS", wrong, problem);
        }
        assert_refused("JWT_TARGETS", "a=1 a=2", "has a name twice; leave one out");
    }

    #[test]
    fn a_value_that_cannot_be_read_is_refused_with_the_remedy_and_not_quoted() {
        let config =
            read(&[("REDIS_SHARDS", "65535"), ("JWT_REPLICAS", "1"), ("JWT_MODE", "at-once")]);
        let config = config.unwrap();
        assert_eq!((config.shards, config.replicas.map(u32::from)), (Some(65535), Some(1)));
        assert!(matches!(config.mode, Some(Mode::AtOnce)));
        assert_refused("REDIS_SHARDS", "65536", "is too large");
        assert_refused("REDIS_SHARDS", "18446744073709551616", "is too large");
        assert_refused("REDIS_SHARDS", "-1", "is not a whole number, such as 60");
        assert_refused("JWT_LEEWAY_SECS", "hunter2", "is not a whole number, such as 60");
        assert_refused("JWT_REPLICAS", "0", "is 0; write 1 or more, or leave it out");
        let problem = "is not a word that is known here; write `at-once` or `later`";
        assert_refused("JWT_MODE", "hunter2", problem);
        let problem = "is set and empty; give it a value or do not set it";
        assert_refused("JWT_SECRET", "", problem);
        assert_refused("JWT_ISSUERS", "", problem);
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_unicode_is_refused_and_not_quoted() {
        use std::os::unix::ffi::OsStringExt as _;
        let value = OsString::from_vec(b"hunter2\xff".to_vec());
        let error = EnvVars::from_iter([("JWT_SECRET", value)]).read::<Example>().unwrap_err();
        assert_eq!(format!("{error:?}"), "JWT_SECRET: is not Unicode; write it anew");
    }

    #[test]
    fn a_secret_has_the_same_text_from_a_variable_and_from_a_file() {
        let by_variable = read(&[("JWT_SECRET", "2026, hunter2 ")]).unwrap().secret.unwrap();
        let by_file: Example = serde_json::from_str(r#"{"secret": "2026, hunter2 "}"#).unwrap();
        assert_eq!(by_variable.expose(), "2026, hunter2 ");
        assert_eq!(by_file.secret.unwrap().expose(), "2026, hunter2 ");
    }
}
