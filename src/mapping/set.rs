//! All mappings of a proxy, and the look-up of a key among them.
//!
//! Must not know: whether the tables exist.

use std::fmt;
use std::time::Duration;

use super::overlap;
use super::spec::{Format, MappingSpec, StoreMode, WriteMode};
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
}

/// All mappings.
#[derive(Debug, Clone)]
pub struct MappingSet {
    mappings: Vec<Mapping>,
    /// Per first byte of a key: where its candidates stand in `candidates`, as (start, end).
    first: Box<[(u16, u16); 256]>,
    candidates: Vec<MappingId>,
}

impl Default for MappingSet {
    fn default() -> Self {
        Self { mappings: Vec::new(), first: Box::new([(0, 0); 256]), candidates: Vec::new() }
    }
}

impl MappingSet {
    /// Checks the declarations against each other; every mistake is reported.
    pub fn new(specs: Vec<MappingSpec>) -> Result<Self, Vec<MappingError>> {
        let mut errors = Vec::new();
        let mut mappings: Vec<Mapping> = Vec::new();
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
            contradictions(&spec).into_iter().for_each(&mut refuse);
            match parse_template(&spec) {
                Ok(template) => {
                    mappings.push(Mapping::from_spec(mappings.len() as MappingId, spec, template))
                }
                Err(message) => refuse(message),
            }
        }
        errors.extend(overlaps(&mappings));
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
        Self { mappings, first, candidates }
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
        let (id, found) = candidates
            .iter()
            .find_map(|id| Some((*id, self.mappings[usize::from(*id)].template.find(key)?)))?;
        (!key.starts_with(RESERVED_PREFIX.as_bytes())).then_some((id, found))
    }

    /// The mapping with this index.
    pub fn get(&self, id: MappingId) -> Option<&Mapping> {
        self.mappings.get(usize::from(id))
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
        }
    }

    fn may_start_with(&self, byte: u8) -> bool {
        match self.template.prefix.as_bytes().first() {
            Some(first) => *first == byte,
            None => {
                let ty = self.template.placeholders[0].ty;
                !ty.is_integer() || byte == b'-' || byte.is_ascii_digit()
            }
        }
    }
}

fn parse_template(spec: &MappingSpec) -> Result<Template, String> {
    let template = Template::parse(&spec.key, &spec.id)
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

/// Settings of one mapping that do not go together.
fn contradictions(spec: &MappingSpec) -> Vec<String> {
    let mut found = Vec::new();
    let mut refuse = |wrong: bool, message: &str| wrong.then(|| found.push(message.to_owned()));
    let writes = spec.write != WriteMode::None;
    let append = spec.mode == StoreMode::Append;
    refuse(spec.name.trim().is_empty(), "needs a name");
    refuse(
        spec.table.is_none() && spec.load.is_none(),
        "names no table; set `table`, or `load` with own SQL",
    );
    refuse(
        spec.table.is_none() && spec.load.is_some() && writes,
        "writes but names no table; set `table`, or write = \"none\"",
    );
    refuse(
        spec.format == Format::Text && spec.column.is_none(),
        "format = \"text\" shows one column; name it with `column`",
    );
    refuse(
        spec.format == Format::Json && spec.column.is_some(),
        "`column` goes with format = \"text\"; remove it, or change the format",
    );
    refuse(
        append && spec.order_by.is_none(),
        "mode = \"append\" keeps many rows per key; say with `order_by` which column tells the newest",
    );
    refuse(
        writes && !append && spec.order_by.is_some(),
        "`order_by` picks the newest of many rows, mode = \"upsert\" keeps one; remove `order_by`, or use mode = \"append\"",
    );
    found
}

fn overlaps(mappings: &[Mapping]) -> Vec<MappingError> {
    let mut errors = Vec::new();
    for (i, a) in mappings.iter().enumerate() {
        for b in &mappings[i + 1..] {
            if let Some(key) = overlap::common_key(&a.template, &b.template) {
                let message = format!(
                    "the key template \"{}\" can match the same key as \"{}\" of mapping \"{}\", for example \
                     \"{key}\"; make the templates differ in a literal",
                    b.template.source(),
                    a.template.source(),
                    a.name
                );
                errors.push(MappingError { mapping: b.name.clone(), message });
            }
        }
    }
    errors
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

    proptest! {
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
