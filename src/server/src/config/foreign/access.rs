//! How serde walks through a node: keys and values, elements, variants.
//!
//! Invariant: every child is a node of its own, so that what fails in it has its place.

use serde::{
    Deserializer,
    de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor},
};

use super::{Hint, Node, Pair, Stop, word_of};
use crate::config::tree::{Item, Table};

/// The keys and values of a table.
pub(super) struct Entries<'a> {
    node: Node<'a>,
    rest: std::vec::IntoIter<Pair<'a>>,
    next: Option<Pair<'a>>,
}

impl<'a> Entries<'a> {
    pub(super) fn new(node: Node<'a>, entries: Vec<Pair<'a>>) -> Self {
        Self { node, rest: entries.into_iter(), next: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Stop> {
        self.next = self.rest.next();
        self.next.map(|(key, _)| seed.deserialize(word_of(key))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let (key, item) = self.next.take().ok_or(Stop::Noted)?;
        let at = item.map_or(self.node.at, |item| &item.at);
        let value = item.map(|item| &item.value);
        Node { at, value, path: self.node.child(key), run: self.node.run }.grow(seed)
    }
}

/// The elements of a list.
pub(super) struct Elements<'a> {
    node: Node<'a>,
    items: &'a [Item],
    next: usize,
}

impl<'a> Elements<'a> {
    pub(super) fn new(node: Node<'a>, items: &'a [Item]) -> Self {
        Self { node, items, next: 0 }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Stop> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        let path = format!("{}[{}]", self.node.path, self.next);
        self.next += 1;
        let node = Node { at: &item.at, value: Some(&item.value), path, run: self.node.run };
        node.grow(seed).map(Some)
    }
}

/// An enum written as a table with one key, the variant.
pub(super) struct Choice<'a> {
    node: Node<'a>,
    table: &'a Table,
}

impl<'a> Choice<'a> {
    pub(super) fn new(node: Node<'a>, table: &'a Table) -> Self {
        Self { node, table }
    }
}

impl<'a, 'de> EnumAccess<'de> for Choice<'a> {
    type Error = Stop;
    type Variant = Node<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Node<'a>), Stop> {
        let mut entries = self.table.0.iter();
        let (Some((word, entry)), None) = (entries.next(), entries.next()) else {
            return Err(Stop::Wrong("expected a table with exactly one key".into()));
        };
        let node = Node {
            at: &entry.item.at,
            value: Some(&entry.item.value),
            path: self.node.child(word),
            run: self.node.run,
        };
        seed.deserialize(word_of(word)).map(|variant| (variant, node))
    }
}

impl<'de> VariantAccess<'de> for Node<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        Err(Stop::Wrong("expected text".into()))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Stop> {
        self.grow(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Stop> {
        self.give(Hint::Seq, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.give(Hint::Struct(fields), visitor)
    }
}

/// `deserialize_*` methods without arguments of their own, by hint.
macro_rules! give {
    ($($method:ident: $hint:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            self.give(Hint::$hint, visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Stop;

    give! {
        deserialize_any: Any,
        deserialize_bool: Flag,
        deserialize_i8: Number,
        deserialize_i16: Number,
        deserialize_i32: Number,
        deserialize_i64: Number,
        deserialize_i128: Number,
        deserialize_u8: Number,
        deserialize_u16: Number,
        deserialize_u32: Number,
        deserialize_u64: Number,
        deserialize_u128: Number,
        deserialize_f32: Float,
        deserialize_f64: Float,
        deserialize_char: Text,
        deserialize_str: Text,
        deserialize_string: Text,
        deserialize_bytes: Text,
        deserialize_byte_buf: Text,
        deserialize_identifier: Text,
        deserialize_option: Optional,
        deserialize_unit: Unit,
        deserialize_seq: Seq,
        deserialize_map: Map,
        deserialize_ignored_any: Any,
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.give(Hint::Unit, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.give(Hint::Newtype, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Stop> {
        self.give(Hint::Seq, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.give(Hint::Seq, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.give(Hint::Struct(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.give(Hint::Enum(variants), visitor)
    }
}
