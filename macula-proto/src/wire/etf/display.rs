//! Terms as Erlang prints them.

use std::fmt::{self, Display, Formatter, Write};

use super::{Atom, Export, Fun, Pid, Port, Reference, Term};

/// As `io:format("~tp")` without line breaks, but for identifiers, which name their node instead of numbering it:
/// `<a@host.132.0>`, `#Ref<a@host.1.2.3>`.
impl Display for Term {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Big(value) => write!(f, "{value}"),
            Self::Float(value) => float(f, *value),
            Self::Atom(atom) => write!(f, "{atom}"),
            Self::Tuple(elements) => {
                f.write_char('{')?;
                separated(f, elements)?;
                f.write_char('}')
            }
            Self::List(elements) => list(f, elements),
            Self::String(bytes) if is_printable(bytes) => quoted(f, '"', bytes.iter().map(|byte| char::from(*byte))),
            Self::String(bytes) => {
                f.write_char('[')?;
                separated(f, bytes.iter())?;
                f.write_char(']')
            }
            Self::ImproperList(elements, tail) => {
                f.write_char('[')?;
                separated(f, elements)?;
                write!(f, "|{tail}]")
            }
            Self::Binary(bytes) => binary(f, bytes),
            Self::Bits(bytes, bits) => bit_string(f, bytes, *bits),
            Self::Map(entries) => {
                f.write_str("#{")?;
                for (at, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{key} => {value}", if at == 0 { "" } else { "," })?;
                }
                f.write_char('}')
            }
            Self::Pid(pid) => write!(f, "{pid}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::Reference(reference) => write!(f, "{reference}"),
            Self::Fun(fun) => write!(f, "{fun}"),
            Self::Export(export) => write!(f, "{export}"),
        }
    }
}

impl Display for Atom {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if is_plain(self) && !RESERVED.contains(&self.as_str()) {
            f.write_str(self)
        } else {
            quoted(f, '\'', self.chars())
        }
    }
}

impl Display for Pid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('<')?;
        node(f, &self.node)?;
        write!(f, ".{}.{}>", self.id, self.serial)
    }
}

impl Display for Port {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("#Port<")?;
        node(f, &self.node)?;
        write!(f, ".{}>", self.id)
    }
}

impl Display for Reference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("#Ref<")?;
        node(f, &self.node)?;
        // Erlang prints the word that came last first.
        self.words().iter().rev().try_for_each(|word| write!(f, ".{word}"))?;
        f.write_char('>')
    }
}

impl Display for Fun {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "#Fun<{}.{}.{}>", self.module, self.old_index, self.old_uniq)
    }
}

impl Display for Export {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "fun {}:{}/{}", self.module, self.function, self.arity)
    }
}

/// Words that are no atoms unless quoted.
const RESERVED: [&str; 29] = [
    "after", "and", "andalso", "band", "begin", "bnot", "bor", "bsl", "bsr", "bxor", "case", "catch", "cond", "div",
    "else", "end", "fun", "if", "let", "maybe", "not", "of", "or", "orelse", "receive", "rem", "try", "when", "xor",
];

/// Only letters of Latin-1 go without quotes.
fn is_plain(text: &str) -> bool {
    let letter = |char: char| char.is_ascii_alphabetic() || matches!(char, 'À'..='ÿ') && char.is_alphabetic();
    text.starts_with(|first: char| letter(first) && first.is_lowercase())
        && text
            .chars()
            .all(|char| letter(char) || char.is_ascii_digit() || matches!(char, '_' | '@'))
}

/// The names of nodes have no need for quotes between brackets, unless they would break them.
fn node(f: &mut Formatter<'_>, node: &Atom) -> fmt::Result {
    let plain = |char: char| char.is_alphanumeric() || matches!(char, '_' | '@' | '.' | '-' | ':');
    if node.chars().all(plain) {
        f.write_str(node)
    } else {
        quoted(f, '\'', node.chars())
    }
}

fn float(f: &mut Formatter<'_>, value: f64) -> fmt::Result {
    let digits = format!("{value:?}");
    match digits.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => write!(f, "{mantissa}.0e{exponent}"),
        _ => f.write_str(&digits),
    }
}

fn separated<T: Display>(f: &mut Formatter<'_>, elements: impl IntoIterator<Item = T>) -> fmt::Result {
    for (at, element) in elements.into_iter().enumerate() {
        write!(f, "{}{element}", if at == 0 { "" } else { "," })?;
    }
    Ok(())
}

fn list(f: &mut Formatter<'_>, elements: &[Term]) -> fmt::Result {
    let byte = |element: &Term| u8::try_from(element.as_i64()?).ok();
    let bytes: Option<Vec<u8>> = elements.iter().map(byte).collect();
    match bytes {
        Some(bytes) if is_printable(&bytes) => quoted(f, '"', bytes.into_iter().map(char::from)),
        _ => {
            f.write_char('[')?;
            separated(f, elements)?;
            f.write_char(']')
        }
    }
}

/// Whether Erlang takes these bytes for text of Latin-1 characters.
fn is_printable(bytes: &[u8]) -> bool {
    let printable = |byte: &u8| matches!(byte, 8..=13 | 27 | 32..=126 | 160..);
    !bytes.is_empty() && bytes.iter().all(printable)
}

fn binary(f: &mut Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let text = std::str::from_utf8(bytes).ok();
    let printable = |char: char| !char.is_control() || matches!(char, '\x08'..='\r' | '\x1b');
    match text.filter(|text| !text.is_empty() && text.chars().all(printable)) {
        Some(text) => {
            f.write_str("<<")?;
            quoted(f, '"', text.chars())?;
            f.write_str(if text.is_ascii() { ">>" } else { "/utf8>>" })
        }
        None => {
            f.write_str("<<")?;
            separated(f, bytes)?;
            f.write_str(">>")
        }
    }
}

fn bit_string(f: &mut Formatter<'_>, bytes: &[u8], bits: u8) -> fmt::Result {
    f.write_str("<<")?;
    if let Some((last, whole)) = bytes.split_last() {
        whole.iter().try_for_each(|byte| write!(f, "{byte},"))?;
        write!(
            f,
            "{}:{bits}",
            last.checked_shr(8 - u32::from(bits.min(8))).unwrap_or(0)
        )?;
    }
    f.write_str(">>")
}

fn quoted(f: &mut Formatter<'_>, quote: char, text: impl Iterator<Item = char>) -> fmt::Result {
    f.write_char(quote)?;
    for char in text {
        match char {
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\x08' => f.write_str("\\b")?,
            '\x0b' => f.write_str("\\v")?,
            '\x0c' => f.write_str("\\f")?,
            '\x1b' => f.write_str("\\e")?,
            '\\' => f.write_str("\\\\")?,
            char if char == quote => write!(f, "\\{char}")?,
            char if char.is_control() => write!(f, "\\x{{{:X}}}", u32::from(char))?,
            char => f.write_char(char)?,
        }
    }
    f.write_char(quote)
}
