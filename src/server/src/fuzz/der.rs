//! DER as it is written: elements in their order, also in spellings that DER does not allow.

use super::{Dice, change_bytes};

/// What lies deeper is changed as bytes.
const DEPTH_MAX: usize = 24;

/// What is put in the place of a tag: the ones of a certificate, and their neighbours.
const TAGS: &[u8] = &[
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0c, 0x13, 0x16, 0x17, 0x18, 0x30, 0x31, 0x80, 0x81, 0x82,
    0x84, 0x86, 0x87, 0xa0, 0xa1, 0xa3, 0xa4, 0xa6,
];

/// What is put in the place of a content: booleans, numbers and bits, names of extensions,
/// times, and names of workloads.
const CONTENTS: &[&[u8]] = &[
    b"",
    b"\x00",
    b"\x01",
    b"\xff",
    b"\x02",
    b"\x07\x80",
    b"\x02\x04",
    b"\x01\x86",
    b"\x2b\x65\x70",
    b"\x55\x1d\x0f",
    b"\x55\x1d\x11",
    b"\x55\x1d\x13",
    b"\x55\x1d\x1e",
    b"\x55\x1d\x25",
    b"260921141319Z",
    b"260921141321Z",
    b"20260921141320Z",
    b"20991231235959Z",
    b"20200101000000Z",
    b"spiffe://example.org",
    b"spiffe://example.org/admin",
    b"spiffe://other.example/web",
    b"https://example.org/web",
];

/// One element.
#[derive(Debug)]
pub(crate) struct Element<'b> {
    /// Class, form and number, as they are written.
    pub(crate) tag: &'b [u8],
    pub(crate) content: &'b [u8],
    /// All of it.
    pub(crate) whole: &'b [u8],
}

impl<'b> Element<'b> {
    /// The first element of `bytes`, and what follows it.
    pub(crate) fn first(bytes: &'b [u8]) -> Option<(Self, &'b [u8])> {
        let mut at = 1;
        if bytes.first()? & 0x1f == 0x1f {
            at += 1 + bytes.get(1..)?.iter().position(|byte| byte & 0x80 == 0)?;
        }
        let tag = bytes.get(..at)?;
        let mut len = usize::from(*bytes.get(at)?);
        at += 1;
        if len > 0x7f {
            let digits = bytes.get(at..at + (len & 0x7f))?;
            at += digits.len();
            len = digits.iter().try_fold(0_usize, |len, digit| {
                len.checked_mul(256)?.checked_add(usize::from(*digit))
            })?;
        }
        let end = at.checked_add(len)?;
        let (content, whole) = (bytes.get(at..end)?, bytes.get(..end)?);
        Some((Self { tag, content, whole }, bytes.get(end..)?))
    }

    /// All elements of `bytes`; nothing where something else stands between or behind them.
    pub(crate) fn all(mut bytes: &'b [u8]) -> Option<Vec<Self>> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (element, rest) = Self::first(bytes)?;
            all.push(element);
            bytes = rest;
        }
        Some(all)
    }

    /// The number of its tag, whatever its class.
    pub(crate) fn number(&self) -> u32 {
        match self.tag {
            [only] => u32::from(only & 0x1f),
            more => more[1..].iter().fold(0, |number, byte| (number << 7) | u32::from(byte & 0x7f)),
        }
    }
}

/// One element, changed in a few places; the lengths around them follow. Nothing where `bytes`
/// are not one.
pub(crate) fn changed(bytes: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
    let (element, rest) = Element::first(bytes)?;
    if !rest.is_empty() {
        return None;
    }
    let mut root = Tree::read(&element, DEPTH_MAX);
    for _ in 0..=dice.below(2) {
        let n = dice.below(root.count());
        root.nth(n)?.change(dice);
    }
    let mut bytes = Vec::new();
    root.write(&mut bytes);
    Some(bytes)
}

/// An element with those within it.
#[derive(Clone)]
struct Tree {
    tag: Vec<u8>,
    inner: Inner,
}

#[derive(Clone)]
enum Inner {
    Bytes(Vec<u8>),
    Elements(Vec<Tree>),
}

impl Tree {
    fn read(element: &Element<'_>, depth_left: usize) -> Self {
        // An extension's value is a string that holds another element.
        let may_hold = element.tag == [0x04] || element.tag[0] & 0x20 != 0;
        let within = if may_hold && depth_left > 0 { Element::all(element.content) } else { None };
        let inner = match within {
            Some(all) => {
                Inner::Elements(all.iter().map(|one| Self::read(one, depth_left - 1)).collect())
            }
            None => Inner::Bytes(element.content.to_vec()),
        };
        Self { tag: element.tag.to_vec(), inner }
    }

    fn count(&self) -> usize {
        match &self.inner {
            Inner::Bytes(_) => 1,
            Inner::Elements(all) => 1 + all.iter().map(Self::count).sum::<usize>(),
        }
    }

    /// The `n`th element of all, this one being the first.
    fn nth(&mut self, n: usize) -> Option<&mut Self> {
        let Some(mut left) = n.checked_sub(1) else { return Some(self) };
        let Inner::Elements(all) = &mut self.inner else { return None };
        for one in all {
            let count = one.count();
            if left < count {
                return one.nth(left);
            }
            left -= count;
        }
        None
    }

    fn change(&mut self, dice: &mut Dice) {
        if dice.one_in(10) {
            self.tag = vec![*dice.pick(TAGS)];
            return;
        }
        match &mut self.inner {
            Inner::Bytes(bytes) if dice.one_in(2) => *bytes = dice.pick(CONTENTS).to_vec(),
            Inner::Bytes(bytes) => change_bytes(bytes, b"", dice),
            Inner::Elements(all) => change_elements(all, dice),
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let mut content = Vec::new();
        match &self.inner {
            Inner::Bytes(own) => content.extend_from_slice(own),
            Inner::Elements(all) => all.iter().for_each(|one| one.write(&mut content)),
        }
        bytes.extend_from_slice(&self.tag);
        let digits: Vec<u8> =
            content.len().to_be_bytes().into_iter().skip_while(|digit| *digit == 0).collect();
        match digits.as_slice() {
            [] => bytes.push(0),
            [only] if *only < 0x80 => bytes.push(*only),
            more => {
                bytes.push(0x80 | u8::try_from(more.len()).unwrap());
                bytes.extend_from_slice(more);
            }
        }
        bytes.extend_from_slice(&content);
    }
}

fn change_elements(all: &mut Vec<Tree>, dice: &mut Dice) {
    let at = dice.below(all.len());
    match dice.below(4) {
        0 if !all.is_empty() => drop(all.remove(at)),
        1 if !all.is_empty() => {
            // Twice: once more as it is, or with a change in it.
            let mut again = all[at].clone();
            let n = dice.below(again.count());
            if let Some(one) = again.nth(n).filter(|_| dice.one_in(2)) {
                one.change(dice);
            }
            all.insert(dice.below(all.len() + 1), again);
        }
        2 if !all.is_empty() => {
            let other = dice.below(all.len());
            all.swap(at, other);
        }
        _ => {
            let inner = Inner::Bytes(dice.pick(CONTENTS).to_vec());
            all.push(Tree { tag: vec![*dice.pick(TAGS)], inner });
        }
    }
}
