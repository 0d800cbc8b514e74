//! Keys of which the database refuses some writes: those with a mark. Their tables, and who writes them.

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::load::{seq_of, transaction, try_cmd};
use crate::model::{Key, Policy, Row};
use crate::support::{Resp, Value};

/// Further mappings, beside those of every victim.
pub const MAPPINGS: &str = r#"
[[mapping]]
name = "flagged"
key = "PREFIXflagged:{id}"
table = "flagged"
id = "bigint"
write = "behind"
ttl = "60s"
on_poison = "flag"
[[mapping]]
name = "waiting"
key = "PREFIXwaiting:{id}"
table = "waiting"
id = "bigint"
write = "behind"
ttl = "60s"
on_poison = "wait"
[[mapping]]
name = "line"
key = "PREFIXline:{id}"
table = "line"
id = "bigint"
format = "text"
column = "value"
order_by = "n"
write = "behind"
mode = "append"
on_poison = "wait"
"#;

/// As long as there is no mercy a new mark is refused, whatever else the row has.
pub const TABLES: &str = "
    create table mercy (granted boolean);
    create table flagged (id bigint primary key, writer int not null, seq bigint not null, mark bigint);
    create table waiting (id bigint primary key, writer int not null, seq bigint not null, mark bigint);
    create table line (n bigserial primary key, id bigint not null, value text not null);
    create function judge() returns trigger language plpgsql as $$ begin
        if tg_op = 'INSERT' then
            if new.mark is null then return new; end if;
        elsif new.mark is null or new.mark is not distinct from old.mark then return new; end if;
        if not exists (select from mercy) then raise 'marked' using errcode = 'check_violation'; end if;
        return new; end $$;
    create function judge_line() returns trigger language plpgsql as $$ begin
        if new.value like '%!' and not exists (select from mercy) then
            raise 'marked' using errcode = 'check_violation'; end if;
        return new; end $$;
    create trigger judge before insert or update on flagged for each row execute function judge();
    create trigger judge before insert or update on waiting for each row execute function judge();
    create trigger judge before insert on line for each row execute function judge_line();
    create trigger note after insert or update on flagged for each row execute function note();
    create trigger note after insert or update on waiting for each row execute function note();";

/// The same of SQLite.
pub fn sqlite_tables() -> String {
    let mut sql = "
        create table mercy (granted integer);
        create table line (n integer primary key, id integer not null, value text not null);
        create trigger judged_line before insert on line
            when new.value like '%!' and not exists (select 1 from mercy) begin select raise(abort, 'marked'); end;"
        .to_owned();
    for table in ["flagged", "waiting"] {
        sql += &"
            create table TABLE (id integer primary key, writer integer not null, seq integer not null, mark integer);
            create trigger judged_TABLE before insert on TABLE
                when new.mark is not null and not exists (select 1 from mercy) begin select raise(abort, 'marked'); end;
            create trigger judged_again_TABLE before update on TABLE
                when new.mark is not null and new.mark is not old.mark and not exists (select 1 from mercy)
                begin select raise(abort, 'marked'); end;
            create trigger noted_TABLE after insert on TABLE
                begin insert into history (kind, id, seq) values ('TABLE', new.id, new.seq); end;
            create trigger noted_again_TABLE after update on TABLE
                begin insert into history (kind, id, seq) values ('TABLE', new.id, new.seq); end;"
            .replace("TABLE", table);
    }
    sql
}

/// More writes with an unknown outcome are not tried before the next look at the database: each doubles the states.
const UNKNOWN: usize = 6;

/// The keys of one writer.
#[derive(Debug)]
pub struct Poisoned {
    pub id: usize,
    /// The proxy through which alone they are written; `None`: through both.
    pub through: Option<usize>,
    pub keys: [Key; 3],
    /// Acknowledged.
    pub count: u64,
    pub stale_reads: Vec<String>,
}

impl Poisoned {
    pub fn new(id: usize, prefix: &str, through: Option<usize>) -> Self {
        let key = |policy, name: &str| Key::new(policy, format!("{prefix}{name}:{id}"));
        let keys = [key(Policy::Flag, "flagged"), key(Policy::Wait, "waiting"), key(Policy::Line, "line")];
        Self { id, through, keys, count: 0, stale_reads: Vec::new() }
    }

    /// One write, of one or two of its keys, as its writer's `seq`-th; false when the connection is of no use any more.
    pub fn step(&mut self, random: &mut StdRng, proxy: &mut Resp, seq: u64) -> bool {
        let upsert = random.random_range(0..2);
        let mut marked = || Some(Row { seq, mark: random.random_bool(0.2).then_some(seq) });
        let (one, other) = (marked(), marked());
        match random.random_range(0..10) {
            // Rows that are appended through both would come in either order.
            0..3 if self.through.is_some() => self.write(&[(2, one)], Way::Alone, proxy),
            3 => self.write(&[(upsert, None)], Way::Alone, proxy),
            4 => self.write(&[(0, one), (1, other)], Way::Alone, proxy),
            5 => self.write(&[(upsert, one)], Way::Unit, proxy),
            6 => self.write(&[(upsert, one)], Way::Watched, proxy),
            _ => self.write(&[(upsert, one)], Way::Alone, proxy),
        }
    }

    fn write(&mut self, writes: &[(usize, Option<Row>)], way: Way, proxy: &mut Resp) -> bool {
        if writes.iter().any(|(at, _)| self.keys[*at].unknown >= UNKNOWN) {
            return true;
        }
        let text = |at: usize, row: &Row| match (at, row.mark) {
            (2, None) => format!("{}-{}", self.id, row.seq),
            (2, Some(_)) => format!("{}-{}!", self.id, row.seq),
            (_, None) => format!("{{\"writer\":{},\"seq\":{}}}", self.id, row.seq),
            (_, Some(mark)) => format!("{{\"writer\":{},\"seq\":{},\"mark\":{mark}}}", self.id, row.seq),
        };
        let name = match writes {
            [(_, None), ..] => "DEL",
            [_] => "SET",
            _ => "MSET",
        };
        let mut command = vec![name.to_owned()];
        for (at, row) in writes {
            command.push(self.keys[*at].name.clone());
            command.extend(row.as_ref().map(|row| text(*at, row)));
        }
        let reply = match way {
            Way::Alone => try_cmd(proxy, &command),
            Way::Unit => transaction(proxy, &command),
            Way::Watched => {
                let watch = [&["WATCH", &*command[1]][..], &["GET", &*command[1]]];
                for command in watch {
                    let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
                    match try_cmd(proxy, &command) {
                        None | Some(Value::Error(_)) => return false,
                        Some(_) => {}
                    }
                }
                transaction(proxy, &command)
            }
        };
        if reply == Some(Value::Nil) {
            // Somebody, the flush perhaps, has touched what was watched.
            return true;
        }
        let acknowledged = !matches!(reply, None | Some(Value::Error(_)));
        for (at, row) in writes {
            self.keys[*at].wrote(*row, acknowledged);
        }
        if !acknowledged {
            return reply.is_some();
        }
        self.count += 1;
        writes.iter().all(|(at, row)| self.read_back(*at, *row, proxy))
    }

    /// A write that may be refused is seen until it is; any other one is seen.
    fn read_back(&mut self, at: usize, row: Option<Row>, proxy: &mut Resp) -> bool {
        let (key, seq) = (&self.keys[at], row.map(|row| row.seq));
        let seen = match try_cmd(proxy, &["GET".to_owned(), key.name.clone()]) {
            None => return false,
            Some(Value::Error(_)) => return true,
            Some(seen) => number_of(&seen),
        };
        let marked = row.is_some_and(|row| row.mark.is_some());
        let fits = match self.through {
            None => marked || seen == seq,
            Some(_) => marked && seen == seq || key.states.iter().any(|state| state.shown() == seen),
        };
        if !fits {
            let what = format!("{}: {seen:?} after {row:?}; {:?}", key.name, key.states);
            self.stale_reads.push(what);
        }
        true
    }
}

/// How a write is made.
enum Way {
    Alone,
    Unit,
    Watched,
}

/// The number of a value, as a row or a line has it.
pub fn number_of(value: &Value) -> Option<u64> {
    let Value::Bulk(bytes) = value else { return None };
    match bytes.first() {
        Some(b'{') => seq_of(value),
        _ => line_of(&String::from_utf8_lossy(bytes)).map(|row| row.seq),
    }
}

/// A value of the mapping that appends.
pub fn line_of(value: &str) -> Option<Row> {
    let (_, seq) = value.split_once('-')?;
    let marked = seq.strip_suffix('!');
    let seq = marked.unwrap_or(seq).parse().ok()?;
    Some(Row { seq, mark: marked.map(|_| seq) })
}
