//! All mappings of a proxy, and the look-up of a key among them.
//!
//! Must not know: whether the tables exist.

use std::fmt;
use std::time::Duration;

use super::check;
use super::spec::{BadKey, Durability, FillPolicy, Format, MappingSpec, OnPoison, StoreMode, WriteMode};
use super::template::{Match, Template, TemplateError};

/// Dense index of a mapping, in the order of declaration.
pub type MappingId = u16;

/// Keys under this prefix are the proxy's own; they are never mapped.
pub const RESERVED_PREFIX: &str = "dsproxy:";

/// Why mappings are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingError {
    /// Name of the mapping at fault.
    pub mapping: String,
    /// What is wrong, with the cure.
    pub message: String,
}

impl fmt::Display for MappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mapping \"{}\": {}", self.mapping, self.message)
    }
}

impl std::error::Error for MappingError {}

/// One mapping whose declaration makes sense in itself.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// Its index.
    pub id: MappingId,
    /// Unique name.
    pub name: String,
    /// Key template.
    pub template: Template,
    /// Table, where one is named.
    pub table: Option<String>,
    /// How values look.
    pub format: Format,
    /// Column of a `text` mapping.
    pub column: Option<String>,
    /// Column that orders rows of the same id.
    pub order_by: Option<String>,
    /// Own SQL for loading.
    pub load: Option<String>,
    /// Life time of a cached value; `None` = no expiry.
    pub ttl: Option<Duration>,
    /// What writes do.
    pub write: WriteMode,
    /// How rows are stored.
    pub mode: StoreMode,
    /// Whether loaded values are stored in the cache.
    pub cache: bool,
    /// Of a list: the mapping whose objects it lists.
    pub of: Option<MappingId>,
    /// The columns of `load` that are the ids of these objects, in the order of their key's placeholders.
    pub listed: Vec<String>,
    /// Members of the value, each with its SQL expression; empty = all columns.
    pub columns: Vec<(String, String)>,
    /// What a key is whose placeholders do not fit their types.
    pub on_bad_key: BadKey,
    /// Longest key in bytes.
    pub max_key: usize,
    /// The writes that make the values stale.
    pub invalidate_on: Option<Dependent>,
    /// Whether values of other mappings become stale when this one is written: the columns that tell which.
    pub watched: Option<Vec<String>>,
    /// The column that tells the newer of two writes of a row.
    pub version_column: Option<String>,
    /// Versions are kept in the proxy's own table as well.
    pub version_table: bool,
    /// What has to survive before a write is acknowledged.
    pub durability: Durability,
    /// What becomes of later writes of a key that has a dead letter.
    pub on_poison: OnPoison,
    /// Writes that may wait behind dead letters; beyond it later ones are applied.
    pub max_held: usize,
    /// How values are filled.
    pub fill: FillPolicy,
}

/// Writes that make the values of a mapping stale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependent {
    /// The mapping that is written.
    pub mapping: MappingId,
    /// The placeholder whose value, in the column of its name, tells which values become stale; `None` = all.
    pub by: Option<String>,
}

/// All mappings.
#[derive(Debug, Clone)]
pub struct MappingSet {
    mappings: Vec<Mapping>,
    /// Per first byte of a key: where its candidates stand in `candidates`, as (start, end).
    first: Box<[(u16, u16); 256]>,
    candidates: Vec<MappingId>,
    /// Whether there are keys that are mistakes.
    strict: bool,
}

impl Default for MappingSet {
    fn default() -> Self {
        Self { mappings: Vec::new(), first: Box::new([(0, 0); 256]), candidates: Vec::new(), strict: false }
    }
}

impl MappingSet {
    /// Checks the declarations against each other; every mistake is reported.
    pub fn new(specs: Vec<MappingSpec>) -> Result<Self, Vec<MappingError>> {
        let mut errors = Vec::new();
        let mut mappings: Vec<Mapping> = Vec::new();
        let mut references = Vec::new();
        for (index, spec) in specs.into_iter().enumerate() {
            let mut refuse =
                |message: String| errors.push(MappingError { mapping: spec.name.clone(), message });
            if index > usize::from(MappingId::MAX / 256) {
                refuse("is one too many: at most 256 mappings are possible".into());
                break;
            }
            if mappings.iter().any(|m| m.name == spec.name) {
                refuse("is declared twice; give each mapping its own name".into());
            }
            check::contradictions(&spec).into_iter().for_each(&mut refuse);
            match parse_template(&spec) {
                Ok(template) => {
                    references.push((spec.of.clone(), spec.invalidate_on.clone()));
                    mappings.push(Mapping::from_spec(mappings.len() as MappingId, spec, template))
                }
                Err(message) => refuse(message),
            }
        }
        errors.extend(check::overlaps(&mappings));
        errors.extend(check::references(&mut mappings, &references));
        if errors.is_empty() { Ok(Self::index(mappings)) } else { Err(errors) }
    }

    fn index(mappings: Vec<Mapping>) -> Self {
        let mut first = Box::new([(0, 0); 256]);
        let mut candidates = Vec::new();
        for (byte, range) in first.iter_mut().enumerate() {
            let start = candidates.len() as u16;
            candidates.extend(mappings.iter().filter(|m| m.may_start_with(byte as u8)).map(|m| m.id));
            *range = (start, candidates.len() as u16);
        }
        let strict = mappings.iter().any(|m| m.on_bad_key == BadKey::Error);
        Self { mappings, first, candidates, strict }
    }

    /// The mapping of `key` and the id values in it; `None` for plain Redis keys. Allocates nothing.
    #[inline]
    pub fn find<'k>(&self, key: &'k [u8]) -> Option<(MappingId, Match<'k>)> {
        let (start, end) = self.first[usize::from(*key.first()?)];
        if start == end {
            return None;
        }
        self.search(start, end, key)
    }

    /// The mapping of `key`.
    #[inline]
    pub fn find_id(&self, key: &[u8]) -> Option<MappingId> {
        self.find(key).map(|(id, _)| id)
    }

    fn search<'k>(&self, start: u16, end: u16, key: &'k [u8]) -> Option<(MappingId, Match<'k>)> {
        // The ranges were built with the candidates: in bounds.
        let candidates = self.candidates.get(usize::from(start)..usize::from(end))?;
        let (id, found) = candidates.iter().find_map(|id| {
            let mapping = self.mappings.get(usize::from(*id))?;
            Some((*id, mapping.template.find(key).filter(|_| key.len() <= mapping.max_key)?))
        })?;
        (!key.starts_with(RESERVED_PREFIX.as_bytes())).then_some((id, found))
    }

    /// The mapping that `key` would belong to, were its placeholders of their types (or the key shorter), where that is
    /// a mistake (`on_bad_key = "error"`). Ask only for keys that `find` does not find.
    #[inline]
    pub fn misfit(&self, key: &[u8]) -> Option<&Mapping> {
        if !self.strict || key.starts_with(RESERVED_PREFIX.as_bytes()) {
            return None;
        }
        self.mappings.iter().find(|m| m.on_bad_key == BadKey::Error && m.template.resembles(key))
    }

    /// Whether there are keys that are mistakes.
    #[inline]
    pub fn has_bad_keys(&self) -> bool {
        self.strict
    }

    /// The mapping with this index.
    pub fn get(&self, id: MappingId) -> Option<&Mapping> {
        self.mappings.get(usize::from(id))
    }

    /// Whether what the cluster holds for a key of this mapping is not yet the answer.
    #[inline]
    pub fn is_indirect(&self, id: MappingId) -> bool {
        self.get(id).is_some_and(Mapping::is_indirect)
    }

    /// The mapping of this name.
    pub fn by_name(&self, name: &str) -> Option<&Mapping> {
        self.mappings.iter().find(|m| m.name == name)
    }

    /// All of them, by index.
    pub fn iter(&self) -> std::slice::Iter<'_, Mapping> {
        self.mappings.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }
}

impl Mapping {
    fn from_spec(id: MappingId, spec: MappingSpec, template: Template) -> Self {
        Self {
            id,
            name: spec.name,
            template,
            table: spec.table,
            format: spec.format,
            column: spec.column,
            order_by: spec.order_by,
            load: spec.load,
            ttl: (!spec.ttl.is_zero()).then_some(spec.ttl),
            write: spec.write,
            mode: spec.mode,
            cache: spec.cache,
            of: None,
            listed: Vec::new(),
            columns: spec.columns,
            on_bad_key: spec.on_bad_key,
            max_key: spec.max_key,
            invalidate_on: None,
            watched: None,
            version_column: spec.version_column,
            version_table: spec.version_table,
            durability: spec.durability,
            on_poison: spec.on_poison,
            max_held: spec.max_held,
            fill: spec.fill,
        }
    }

    /// Whether what the cluster holds for a key is not yet the answer: it may be of an older generation, or a list of ids.
    pub fn is_indirect(&self) -> bool {
        self.of.is_some() || self.invalidate_on.is_some()
    }

    fn may_start_with(&self, byte: u8) -> bool {
        match self.template.prefix.as_bytes().first() {
            Some(first) => *first == byte,
            None => {
                let first = self.template.placeholders.first();
                first.is_some_and(|p| !p.ty.is_integer() || byte == b'-' || byte.is_ascii_digit())
            }
        }
    }
}

fn parse_template(spec: &MappingSpec) -> Result<Template, String> {
    let template = Template::parse(&spec.key, &spec.id)
        .and_then(|template| template.bounded(&spec.max))
        .map_err(|error: TemplateError| format!("the key template \"{}\" {error}", spec.key))?;
    if template.prefix.starts_with(RESERVED_PREFIX) {
        return Err(format!(
            "the key template \"{}\" lies under \"{RESERVED_PREFIX}\", which the proxy keeps for itself; \
             choose another prefix",
            spec.key
        ));
    }
    Ok(template)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(keys: &[(&str, &str)]) -> Result<MappingSet, Vec<MappingError>> {
        MappingSet::new(
            keys.iter()
                .enumerate()
                .map(|(i, (key, id))| MappingSpec::new(&format!("m{i}"), key, "t", id))
                .collect(),
        )
    }

    #[test]
    fn finds_the_mapping_of_a_key() {
        let set = set(&[
            ("user:{id}", "bigint"),
            ("user:{id}:posts", "bigint"),
            ("{n}", "int"),
            ("p:{a}:{b}", "text"),
        ])
        .unwrap();
        let id = |key: &str| set.find_id(key.as_bytes());
        assert_eq!(id("user:1"), Some(0));
        assert_eq!(id("user:1:posts"), Some(1));
        assert_eq!(id("-5"), Some(2));
        assert_eq!(id("p:x:y:z"), Some(3));
        assert_eq!((id("user:01"), id("user"), id(""), id("other"), id("ü")), (None, None, None, None, None));
        assert_eq!(set.find(b"p:x:y:z").unwrap().1.ids(), ["x", "y:z"]);
    }

    #[test]
    fn a_catch_all_leaves_the_proxys_own_keys_alone() {
        let set = set(&[("{id}", "text")]).unwrap();
        assert_eq!(set.find_id(b"user1"), Some(0));
        assert_eq!(set.find_id(b"dsproxy:{x}:m:user1"), None);
    }

    #[test]
    fn all_mistakes_come_together() {
        let mut text = MappingSpec::new("c", "c:{id}", "t", "int");
        text.format = Format::Text;
        text.mode = StoreMode::Append;
        let specs = vec![
            MappingSpec::new("a", "user:{id}", "t", "bigint"),
            MappingSpec::new("a", "user:{name}", "t", "text"),
            MappingSpec::new("b", "dsproxy:{id}", "t", "int"),
            text,
        ];
        let messages: Vec<String> =
            MappingSet::new(specs).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(messages.len(), 5, "{messages:#?}");
        assert!(messages.iter().any(|m| m.contains("\"user:1\"") && m.contains("mapping \"a\"")));
        assert!(messages.iter().any(|m| m.contains("declared twice")));
        assert!(messages.iter().any(|m| m.contains("keeps for itself")));
        assert!(messages.iter().any(|m| m.contains("name it with `column`")));
        assert!(messages.iter().any(|m| m.contains("order_by")));
    }

    #[test]
    fn bounds_and_lengths_are_part_of_the_key() {
        let mut page =
            MappingSpec::new("page", "user:{user_id}:posts:{offset}:{limit}", "t", "bigint, int, int");
        page.max = vec![("offset".into(), 1000), ("limit".into(), 50)];
        page.on_bad_key = BadKey::Error;
        let mut slug = MappingSpec::new("slug", "slug:{slug}", "t", "text");
        slug.max_key = 16;
        let mut all = MappingSpec::new("all", "posts:all", "t", "");
        all.load = Some("select 1".into());
        let set = MappingSet::new(vec![page, slug, all]).unwrap();
        let id = |key: &str| set.find_id(key.as_bytes());
        assert_eq!(id("user:1:posts:0:50"), Some(0));
        assert_eq!((id("posts:all"), id("posts:al"), id("posts:all:x")), (Some(2), None, None));
        assert_eq!((id("slug:12345678901"), id("slug:123456789012")), (Some(1), None));
        let misfit = |key: &str| set.misfit(key.as_bytes()).map(|m| m.name.clone());
        for bad in ["0:51", "1001:1", "-1:5", "x:5", "0:", "0:5:5", "18446744073709551616:1"] {
            let key = format!("user:1:posts:{bad}");
            assert_eq!((id(&key), misfit(&key).as_deref()), (None, Some("page")), "{key}");
        }
        for plain in ["slug:123456789012", "user:1", "user:1:posts:0", "other", "", "dsproxy:x"] {
            assert_eq!((id(plain), misfit(plain)), (None, None), "{plain}");
        }
    }

    #[test]
    fn names_of_other_mappings_are_resolved() {
        let list = |of: Option<&str>, on: Option<(&str, Option<&str>)>| {
            let post = MappingSpec::new("post", "post:{id}", "t", "bigint");
            let mut list = MappingSpec::new("l", "l:{user_id}", "t", "bigint");
            (list.format, list.table, list.load) = (Format::List, None, Some("select 1 as id".into()));
            list.of = of.map(str::to_owned);
            list.invalidate_on = on.map(|(name, by)| (name.to_owned(), by.map(str::to_owned)));
            MappingSet::new(vec![list, post])
        };
        let set = list(Some("post"), Some(("post", Some("user_id")))).unwrap();
        assert_eq!(set.get(0).unwrap().of, Some(1));
        let on = Dependent { mapping: 1, by: Some("user_id".into()) };
        assert_eq!(set.get(0).unwrap().invalidate_on, Some(on));
        let error = |of, on| list(of, on).unwrap_err()[0].message.clone();
        assert!(error(Some("posts"), None).contains("no mapping"));
        assert!(error(Some("l"), None).contains("not \"json\""));
        assert!(error(None, Some(("x", None))).contains("no mapping"));
        assert!(error(None, Some(("post", Some("author")))).contains("no placeholder"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_that_builds_itself_or_no_key(
            key in prop::collection::vec(any::<u8>(), 0..24), prefixed: bool,
        ) {
            let key = if prefixed { [b"p:".as_slice(), &key].concat() } else { key };
            let set = set(&[("p:{a}:{b}", "text,bigint"), ("{n}", "int"), ("q{u}", "uuid")]).unwrap();
            if let Some((id, found)) = set.find(&key) {
                let built = set.get(id).and_then(|m| m.template.build(found.ids()));
                prop_assert_eq!(built.map(String::into_bytes), Some(key));
            }
        }

        #[test]
        fn an_accepted_set_never_has_two_answers(
            keys in prop::collection::vec(("[ab]{0,2}\\{x\\}(:[ab]?(\\{y\\}b?)?)?", 0..3usize), 2..4),
            key in "[ab1:]{1,8}",
        ) {
            let types = ["text", "int", "varchar(2)"];
            let keys: Vec<_> = keys.iter().map(|(k, t)| (k.as_str(), types[*t])).collect();
            if let Ok(set) = set(&keys) {
                prop_assert!(set.iter().filter(|m| m.template.find(key.as_bytes()).is_some()).count() <= 1);
                let first = set.iter().find(|m| m.template.find(key.as_bytes()).is_some()).map(|m| m.id);
                prop_assert_eq!(set.find_id(key.as_bytes()), first);
            }
        }
    }
}
