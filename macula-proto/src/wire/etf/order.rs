//! Equality and a total order of terms. Recursion ends with the nesting, which decoders bound.

use std::cmp::Ordering;

use super::Term;

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Term {}

impl PartialOrd for Term {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Term {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Big(a), Self::Big(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.to_bits().cmp(&b.to_bits()),
            (Self::Atom(a), Self::Atom(b)) => a.cmp(b),
            (Self::Tuple(a), Self::Tuple(b)) => a.cmp(b),
            (Self::List(a), Self::List(b)) => a.cmp(b),
            (Self::String(a), Self::String(b)) => a.cmp(b),
            (Self::String(a), Self::List(b)) => mixed(a, b),
            (Self::List(a), Self::String(b)) => mixed(b, a).reverse(),
            (Self::ImproperList(a, a_tail), Self::ImproperList(b, b_tail)) => a.cmp(b).then_with(|| a_tail.cmp(b_tail)),
            (Self::Binary(a), Self::Binary(b)) => a.cmp(b),
            (Self::Bits(a, a_bits), Self::Bits(b, b_bits)) => a.cmp(b).then(a_bits.cmp(b_bits)),
            (Self::Map(a), Self::Map(b)) => a.cmp(b),
            (Self::Pid(a), Self::Pid(b)) => a.cmp(b),
            (Self::Port(a), Self::Port(b)) => a.cmp(b),
            (Self::Reference(a), Self::Reference(b)) => a.cmp(b),
            (Self::Fun(a), Self::Fun(b)) => a.cmp(b),
            (Self::Export(a), Self::Export(b)) => a.cmp(b),
            (a, b) => rank(a).cmp(&rank(b)),
        }
    }
}

fn mixed(bytes: &[u8], elements: &[Term]) -> Ordering {
    for (byte, element) in bytes.iter().zip(elements) {
        let ordering = Term::Int((*byte).into()).cmp(element);
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    bytes.len().cmp(&elements.len())
}

fn rank(term: &Term) -> u8 {
    match term {
        Term::Int(_) => 0,
        Term::Big(_) => 1,
        Term::Float(_) => 2,
        Term::Atom(_) => 3,
        Term::Tuple(_) => 4,
        Term::List(_) | Term::String(_) => 5,
        Term::ImproperList(..) => 6,
        Term::Binary(_) => 7,
        Term::Bits(..) => 8,
        Term::Map(_) => 9,
        Term::Pid(_) => 10,
        Term::Port(_) => 11,
        Term::Reference(_) => 12,
        Term::Fun(_) => 13,
        Term::Export(_) => 14,
    }
}
