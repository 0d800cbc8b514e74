//! Tests of binding and of rows, on a table that has one of each.

use super::*;

fn column(name: &str, ty: ColumnType) -> Column {
    Column {
        name: name.into(),
        declared: ty.to_string(),
        cast: ty.to_string(),
        ty,
        not_null: false,
        has_default: false,
        generated: false,
        identity_always: false,
    }
}

fn users() -> Table {
    let mut columns = vec![
        column("id", ColumnType::BigInt),
        column("name", ColumnType::Varchar(5)),
        column("age", ColumnType::Int),
        column("slug", ColumnType::Text),
        column("created", ColumnType::Timestamptz),
    ];
    columns[0].not_null = true;
    columns[1].not_null = true;
    columns[3].generated = true;
    columns[4].not_null = true;
    columns[4].has_default = true;
    let (sql_name, name) = ("\"users\"".into(), "users".into());
    Table { sql_name, name, columns, primary_key: vec![0], unique: vec![vec![0]] }
}

fn mapping(change: impl FnOnce(&mut MappingSpec)) -> Mapping {
    let mut spec = MappingSpec::new("user", "user:{id}", "users", "bigint");
    spec.write = WriteMode::Behind;
    change(&mut spec);
    MappingSet::new(vec![spec]).unwrap().get(0).unwrap().clone()
}

fn refused(change: impl FnOnce(&mut MappingSpec)) -> Vec<String> {
    bind(mapping(change), users()).unwrap_err().iter().map(ToString::to_string).collect()
}

fn row(body: &str) -> Result<Row, String> {
    let bound = bind(mapping(|_| {}), users()).unwrap();
    Row::parse(&bound, &["7"], body.as_bytes()).map_err(|e| e.to_string())
}

#[test]
fn binding_names_mistake_and_cure() {
    let text = refused(|s| {
        s.key = "user:{idd}".into();
        s.format = Format::Text;
        s.column = Some("nmae".into());
    });
    assert_eq!(text.len(), 2, "{text:#?}");
    assert!(text[0].contains("no column \"idd\" (did you mean \"id\"?)"));
    assert!(text[1].contains("`column` names \"nmae\"") && text[1].contains("\"name\"?"));
    assert!(refused(|s| s.id = "uuid".into())[0].contains("set id = \"bigint\""));
    assert!(refused(|s| s.key = "u:{age}".into())[0].contains("set id = \"int\""));
    let messages = refused(|s| (s.key, s.id) = ("u:{age}".into(), "int".into()));
    assert!(messages[0].contains("create unique index on users (age)"), "{messages:?}");
    let order = refused(|s| {
        s.mode = StoreMode::Append;
        s.order_by = Some("name".into());
    });
    assert!(order[0].contains("integer, date or timestamp"));
}

#[test]
fn a_partial_object_is_a_row() {
    let row = row(r#"{"age": 36, "name":"Ada", "id":7}"#).unwrap();
    assert_eq!(row.ids.iter().map(|id| &**id).collect::<Vec<_>>(), ["7"]);
    assert_eq!(row.columns, [(1, Some("Ada".into())), (2, Some("36".into()))]);
}

#[test]
fn what_does_not_fit_is_named() {
    for (body, message) in [
        (r#"{"nam":"Ada"}"#, "column 'nam' does not exist in table 'users' (did you mean \"name\"?)"),
        (r#"{"name":"Ada","age":"36"}"#, "column 'age' expects an integer"),
        (r#"{"name":"Adalbert"}"#, "column 'name' has 8 characters, 5 fit"),
        (r#"{"name":null}"#, "column 'name' is null"),
        (r#"{"age":3}"#, "column 'name' is missing"),
        (r#"{"name":"Ada","created":null}"#, "column 'created' is null"),
        (r#"{"name":"Ada","id":8}"#, "column 'id' differs from the id in the key"),
        (r#"{"name":"Ada","slug":"a"}"#, "column 'slug' is generated"),
        (r#"{"name":"Ada","name":"Bob"}"#, "given twice"),
        (r#"{"name":"Ada"} x"#, "trailing"),
        ("[1]", "must be a JSON object"),
        ("", "must be a JSON object"),
        (r#"{"name":"#, "EOF"),
    ] {
        let error = row(body).expect_err(body);
        assert!(error.contains(message) && error.contains("mapping 'user'"), "{body}: {error}");
    }
    let bound = bind(mapping(|_| {}), users()).unwrap();
    assert!(Row::parse(&bound, &["7"], b"{\"name\":\"\xff\"}").unwrap_err().to_string().contains("UTF-8"));
    let bound = bind(mapping(|s| s.write = WriteMode::None), users()).unwrap();
    assert!(Row::parse(&bound, &["7"], b"{}").unwrap_err().to_string().contains("read-only"));
}

#[test]
fn a_row_can_come_column_by_column() {
    let bound = bind(
        mapping(|s| {
            s.mode = StoreMode::Append;
            s.order_by = Some("created".into());
        }),
        users(),
    )
    .unwrap();
    let given = [("name", Some("Ada")), ("created", Some("1970-01-01T00:00:01Z"))];
    let row = Row::from_columns(&bound, &["7"], &given).unwrap();
    assert_eq!(row.order_key(&bound), Some(OrderKey(1_000_000)));
    let error = Row::from_columns(&bound, &["7"], &[("name", Some("Ada")), ("created", None)]).unwrap_err();
    assert!(error.to_string().contains("created"));
}
