//! Types of serde as values, and back.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Value, from_value, to_value};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(u32),
    Line(i64, i64),
    Box { width: f64, height: f64 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    yes: bool,
    small: i8,
    large: u64,
    letter: char,
    name: String,
    nothing: Option<u8>,
    something: Option<u8>,
    unit: (),
    pair: (u8, String),
    list: Vec<i32>,
    map: BTreeMap<String, f32>,
    shapes: Vec<Shape>,
}

fn text(text: &str) -> Value {
    Value::text(text)
}

fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(from: T) {
    let value = to_value(&from).unwrap();
    assert_eq!(from_value::<T>(value).unwrap(), from);
}

#[test]
fn types_come_back_as_they_were() {
    there_and_back(Everything {
        yes: true,
        small: -128,
        large: u64::MAX,
        letter: 'ß',
        name: "a name".into(),
        nothing: None,
        something: Some(7),
        unit: (),
        pair: (1, "two".into()),
        list: vec![i32::MIN, 0, i32::MAX],
        map: [("x".to_owned(), 0.5), ("y".to_owned(), -1.0)].into(),
        shapes: vec![
            Shape::Point,
            Shape::Circle(3),
            Shape::Line(-1, 1),
            Shape::Box {
                width: 1.5,
                height: 2.5,
            },
        ],
    });
    there_and_back(i128::from(u64::MAX));
    there_and_back(i128::from(i64::MIN));
}

#[test]
fn the_forms_are_those_of_the_table() {
    assert_eq!(to_value(&5i8).unwrap(), Value::Uint(5));
    assert_eq!(to_value(&-5i8).unwrap(), Value::Int(-5));
    assert_eq!(to_value("x").unwrap(), text("x"));
    assert_eq!(to_value(&()).unwrap(), Value::Null);
    assert_eq!(to_value(&Shape::Point).unwrap(), text("Point"));
    let circle = Value::Map(vec![(text("Circle"), Value::Uint(3))]);
    assert_eq!(to_value(&Shape::Circle(3)).unwrap(), circle);
    let line = Value::Array(vec![Value::Uint(1), Value::Int(-2)]);
    let line = Value::Map(vec![(text("Line"), line)]);
    assert_eq!(to_value(&Shape::Line(1, -2)).unwrap(), line);
}

#[test]
fn what_has_no_form_is_refused() {
    assert!(to_value(&f64::NAN).is_err());
    assert!(to_value(&f32::INFINITY).is_err());
    assert!(to_value(&(i128::from(u64::MAX) + 1)).is_err());
    assert!(to_value(&(i128::from(i64::MIN) - 1)).is_err());
    assert!(to_value(&u128::MAX).is_err());
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(from_value::<u8>(Value::Uint(256)).is_err());
    assert!(from_value::<u64>(Value::Int(-1)).is_err());
    assert!(from_value::<String>(Value::Uint(1)).is_err());
    assert!(from_value::<String>(Value::bytes([0xff])).is_err());
    assert!(from_value::<(u8, u8)>(Value::Array(vec![Value::Uint(1)])).is_err());
    assert!(from_value::<(u8, u8)>(Value::Array(vec![Value::Uint(1); 3])).is_err());
    assert!(from_value::<Shape>(text("Blob")).is_err());
    assert!(from_value::<Shape>(text("Circle")).is_err());
    assert!(from_value::<Shape>(Value::Map(Vec::new())).is_err());
    let error = from_value::<u8>(Value::text("a secret")).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn reading_takes_what_deployed_peers_write() {
    assert_eq!(from_value::<String>(Value::bytes("x")).unwrap(), "x");
    assert_eq!(from_value::<Shape>(Value::bytes("Point")).unwrap(), Shape::Point);
    assert!(from_value::<bool>(Value::bytes("true")).unwrap());
    assert!(!from_value::<bool>(text("false")).unwrap());
    // A list of small integers, and an empty list.
    assert_eq!(from_value::<Vec<u64>>(text("\u{1}\u{2}")).unwrap(), [1, 2]);
    assert_eq!(from_value::<Vec<String>>(text("")).unwrap(), [""; 0]);
    assert_eq!(from_value::<Vec<u8>>(Value::bytes([1, 255])).unwrap(), [1, 255]);
    assert_eq!(from_value::<f64>(Value::Uint(2)).unwrap(), 2.0);
    let entry = |key: &str, value| (Value::bytes(key), value);
    let shape = Value::Map(vec![entry("width", Value::Uint(1)), entry("height", Value::Float(2.0))]);
    let shape = Value::Map(vec![entry("Box", shape)]);
    let expected = Shape::Box {
        width: 1.0,
        height: 2.0,
    };
    assert_eq!(from_value::<Shape>(shape).unwrap(), expected);
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::Uint),
        any::<i64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::Float),
        any::<Vec<u8>>().prop_map(Value::bytes),
        any::<String>().prop_map(Value::text),
        any::<Vec<u8>>().prop_map(|bytes| Value::Text(bytes.into())),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::vec((inner.clone(), inner), 0..8).prop_map(Value::Map),
        ]
    })
}

/// Text that is not UTF-8 as bytes.
fn readable(value: Value) -> Value {
    match value {
        Value::Text(bytes) if std::str::from_utf8(&bytes).is_err() => Value::Bytes(bytes),
        Value::Array(items) => Value::Array(items.into_iter().map(readable).collect()),
        Value::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (readable(key), readable(value)))
                .collect(),
        ),
        value => value,
    }
}

proptest! {
    #[test]
    fn values_are_themselves(value in values()) {
        prop_assert_eq!(&to_value(&value).unwrap(), &value);
        prop_assert_eq!(from_value::<Value>(value.clone()).unwrap(), readable(value));
    }
}
