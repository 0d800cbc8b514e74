//! Parameters of statements: arrays of ids in the type that a statement expects.
//!
//! Must not know: statements.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

pub(super) type Param<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// Whether `array` elements can be given by `array_of`.
pub(super) fn element_type(array: &Type) -> Option<Type> {
    let Kind::Array(element) = array.kind() else { return None };
    let known = [Type::INT2, Type::INT4, Type::INT8, Type::TEXT, Type::VARCHAR, Type::UUID];
    known.contains(element).then(|| element.clone())
}

/// `ids` as an array of `element`; `None` where an id is not of that type, which the canonical form of keys rules out.
pub(super) fn array_of<'a>(element: &Type, ids: &[&'a str]) -> Option<Param<'a>> {
    Some(match *element {
        Type::INT2 => Box::new(parse::<i16>(ids)?),
        Type::INT4 => Box::new(parse::<i32>(ids)?),
        Type::INT8 => Box::new(parse::<i64>(ids)?),
        Type::UUID => Box::new(ids.iter().map(|id| Uuid::parse(id)).collect::<Option<Vec<_>>>()?),
        _ => Box::new(ids.to_vec()),
    })
}

fn parse<T: std::str::FromStr>(ids: &[&str]) -> Option<Vec<T>> {
    ids.iter().map(|id| id.parse().ok()).collect()
}

#[derive(Debug)]
struct Uuid(u128);

impl Uuid {
    fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok().map(Self))?
    }
}

impl ToSql for Uuid {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_u128(self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    to_sql_checked!();
}
