//! serde's traits around serde's traits: everything is passed on, with the path at hand and without what is left out.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

use super::super::places::{element_of, join};
use super::{At, Spot};

/// Methods of a deserializer for what has no parts, and for what has.
macro_rules! pass_on {
    ($(whole $whole:ident($($a:ident: $at:ty),*);)* $(parts $parts:ident($($b:ident: $bt:ty),*);)*) => {
        $(fn $whole<V: Visitor<'de>>(self, $($a: $at,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$whole($($a,)* visitor)
        })*
        $(fn $parts<V: Visitor<'de>>(self, $($b: $bt,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$parts($($b,)* self.spot.of(visitor))
        })*
    };
}

type Name = &'static str;

impl<'de, D: Deserializer<'de>> Deserializer<'de> for At<'_, D> {
    type Error = D::Error;

    pass_on! {
        whole deserialize_any();
        whole deserialize_bool();
        whole deserialize_i8();
        whole deserialize_i16();
        whole deserialize_i32();
        whole deserialize_i64();
        whole deserialize_i128();
        whole deserialize_u8();
        whole deserialize_u16();
        whole deserialize_u32();
        whole deserialize_u64();
        whole deserialize_u128();
        whole deserialize_f32();
        whole deserialize_f64();
        whole deserialize_char();
        whole deserialize_str();
        whole deserialize_string();
        whole deserialize_bytes();
        whole deserialize_byte_buf();
        whole deserialize_unit();
        whole deserialize_identifier();
        whole deserialize_ignored_any();
        whole deserialize_unit_struct(name: Name);
        whole deserialize_tuple(len: usize);
        whole deserialize_tuple_struct(name: Name, len: usize);
        whole deserialize_enum(name: Name, variants: &'static [Name]);
        parts deserialize_option();
        parts deserialize_seq();
        parts deserialize_map();
        parts deserialize_newtype_struct(name: Name);
        parts deserialize_struct(name: Name, fields: &'static [Name]);
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for At<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(self.spot.of(value))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(self.spot.of(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        let spot = self.spot;
        self.inner.visit_seq(Elements { list, spot, next: 0 })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let value = self.spot.below(String::new());
        let spot = self.spot;
        self.inner.visit_map(Entries { map, spot, value })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for At<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(self.spot.of(deserializer))
    }
}

/// A list and the index of its next element.
struct Elements<'p, A> {
    list: A,
    spot: Spot<'p>,
    next: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        loop {
            let spot = self.spot.below(element_of(&self.spot.path, self.next));
            self.next += 1;
            if !spot.is_left_out() {
                let element = spot.below(spot.path.clone());
                let read = self.list.next_element_seed(element.of(seed));
                return read.inspect_err(|_| spot.failed());
            }
            let skipped = self.list.next_element::<IgnoredAny>();
            if skipped.inspect_err(|_| spot.failed())?.is_none() {
                return Ok(None);
            }
        }
    }
}

/// A mapping and the place of the value that comes next.
struct Entries<'p, A> {
    map: A,
    spot: Spot<'p>,
    value: Spot<'p>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        loop {
            let Some(key) = self.map.next_key::<String>()? else {
                return Ok(None);
            };
            self.value = self.spot.below(join(&self.spot.path, &key));
            if !self.value.is_left_out() {
                let read = seed.deserialize(key.into_deserializer());
                return read.map(Some).inspect_err(|_| self.value.failed());
            }
            let skipped = self.map.next_value::<IgnoredAny>();
            skipped.inspect_err(|_| self.value.failed())?;
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let spot = self.value.below(self.value.path.clone());
        let read = self.map.next_value_seed(spot.of(seed));
        read.inspect_err(|_| self.value.failed())
    }
}
