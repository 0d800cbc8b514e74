//! A `[[mapping]]` of the configuration in the words of the mappings.
//!
//! Must not know: what a setting means.

use crate::config::{
    BadKey as BadKeyConfig, CachePolicy, Durability as DurabilityConfig, MappingConfig,
    OnPoison as OnPoisonConfig, ValueFormat, WriteMode as ModeConfig, WritePolicy,
};
use crate::mapping::{BadKey, Durability, FillPolicy, Format, MappingSpec, OnPoison, StoreMode, WriteMode};

/// What is declared, unchecked.
pub(super) fn spec(mapping: &MappingConfig, max_held: usize) -> MappingSpec {
    MappingSpec {
        name: mapping.name.clone(),
        key: mapping.key.clone(),
        table: mapping.table.clone(),
        id: mapping.id.join(", "),
        format: match mapping.format {
            ValueFormat::Json => Format::Json,
            ValueFormat::Text => Format::Text,
            ValueFormat::Hash => Format::Hash,
            ValueFormat::List => Format::List,
        },
        column: mapping.column.clone(),
        order_by: mapping.order_by.clone(),
        load: mapping.load.clone(),
        ttl: mapping.ttl,
        write: match mapping.write {
            WritePolicy::None => WriteMode::None,
            WritePolicy::Behind => WriteMode::Behind,
        },
        mode: match mapping.mode {
            ModeConfig::Upsert => StoreMode::Upsert,
            ModeConfig::Append => StoreMode::Append,
        },
        cache: mapping.cache == CachePolicy::On,
        of: mapping.of.clone(),
        columns: mapping.columns.clone(),
        max: mapping.max.clone(),
        on_bad_key: match mapping.on_bad_key {
            BadKeyConfig::Nil => BadKey::Nil,
            BadKeyConfig::Error => BadKey::Error,
        },
        max_key: mapping.max_key,
        invalidate_on: mapping.invalidate_on.clone().map(|on| (on.mapping, on.by)),
        version_column: mapping.version_column.clone(),
        version_table: mapping.version_table,
        durability: match mapping.durability {
            DurabilityConfig::Journal => Durability::Journal,
            DurabilityConfig::Memory => Durability::Memory,
            DurabilityConfig::Database => Durability::Database,
        },
        on_poison: match mapping.on_poison {
            OnPoisonConfig::Flag => OnPoison::Flag,
            OnPoisonConfig::Wait => OnPoison::Wait,
        },
        max_held,
        fill: FillPolicy {
            negative_ttl: mapping.negative_ttl,
            ttl_jitter: mapping.ttl_jitter,
            refresh_ahead: mapping.refresh_ahead,
            stale: mapping.stale_while_revalidate,
            lease: mapping.lease,
            timeout: mapping.timeout,
            max_batch: mapping.max_batch,
        },
    }
}
