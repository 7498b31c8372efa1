//! Values in TOML files that are read by the same parsers as arguments.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};

/// A text, or a number as its text, so that `10` and `"10MB"` may both stand where a size is meant.
pub(crate) struct Scalar(pub(crate) String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar(text.to_owned()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }
}

/// One text, or a list of texts.
pub(crate) struct OneOrMany(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor)
    }
}

struct OneOrManyVisitor;

impl<'de> Visitor<'de> for OneOrManyVisitor {
    type Value = OneOrMany;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
        Ok(OneOrMany(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
        let mut all = Vec::new();
        while let Some(text) = seq.next_element()? {
            all.push(text);
        }
        Ok(OneOrMany(all))
    }
}

/// A function for `deserialize_with` that reads an optional value by an argument's parser, and names the key in errors.
macro_rules! parsed {
    ($name:ident, $key:literal, $type:ty, $parse:path) => {
        fn $name<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<$type>, D::Error> {
            let crate::cli::scalar::Scalar(text) = serde::Deserialize::deserialize(deserializer)?;
            $parse(&text)
                .map(Some)
                .map_err(|error| serde::de::Error::custom(format_args!("{}: {error}", $key)))
        }
    };
}

/// The same for one value or a list of values; an absent key is an empty list.
macro_rules! parsed_list {
    ($name:ident, $key:literal, $type:ty, $parse:path) => {
        fn $name<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<$type>>, D::Error> {
            let crate::cli::scalar::OneOrMany(texts) = serde::Deserialize::deserialize(deserializer)?;
            texts
                .iter()
                .map(|text| $parse(text))
                .collect::<Result<_, _>>()
                .map(Some)
                .map_err(|error| serde::de::Error::custom(format_args!("{}: {error}", $key)))
        }
    };
}

pub(crate) use {parsed, parsed_list};
