//! Text to statements: variables, tokens, then a small parser of our own statements that leaves queries to `sqlparser`.
//!
//! The whole text is one token list, so that every place in every error is a place in the file the user gave.

use datafusion::sql::sqlparser::ast::{self, Ident};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use watershed_core::error::{Error, Place, Result};
use watershed_core::settings::parse_span;
use watershed_core::time::Span;

use super::place::{place, span_place};
use super::statement::{
    Backfill, CreateExternalTable, CreateMaterializedView, CreateSink, CreateSource, CreateTable, CreateView, Drop,
    ExternalFormat, Insert, Kind, Options, Parsed, Statement,
};
use super::variables::substitute;
use super::{columns, window_tables};

/// Splits a text into statements, `${NAME}` replaced by what `variables` says (an unset one is an error at its place).
pub fn parse(text: &str, variables: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Parsed>> {
    let source = substitute(text, variables)?;
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, &source.text).tokenize_with_location();
    let mut tokens = tokens.map_err(|e| {
        let at = source.origin(e.location.line, e.location.column);
        Error::sql_at(e.message, Some(at))
    })?;
    for token in &mut tokens {
        for location in [&mut token.span.start, &mut token.span.end] {
            let origin = source.origin(location.line, location.column);
            (location.line, location.column) = (origin.line, origin.column);
        }
    }
    let mut parser = Statements { parser: Parser::new(&dialect).with_tokens_with_locations(tokens) };
    let mut statements = vec![];
    loop {
        while parser.parser.consume_token(&Token::SemiColon) {}
        if parser.parser.peek_token_ref().token == Token::EOF {
            return Ok(statements);
        }
        // The end of the text has no span: an error without a place is there.
        let parsed = parser.parsed().map_err(|e| match e {
            Error::Sql { message, at: None } => Error::sql_at(message, Some(source.end())),
            other => other,
        });
        statements.push(parsed?);
        let next = parser.parser.peek_token_ref();
        if !matches!(next.token, Token::SemiColon | Token::EOF) {
            return Err(unexpected("the end of the statement, or ;", next));
        }
    }
}

struct Statements<'a> {
    parser: Parser<'a>,
}

impl Statements<'_> {
    fn parsed(&mut self) -> Result<Parsed> {
        let at = self.here().unwrap_or(Place { line: 1, column: 1 });
        let statement = self.statement()?;
        let text = statement.to_string();
        Ok(Parsed { statement, text, at })
    }

    fn statement(&mut self) -> Result<Statement> {
        if self.word("CREATE") {
            return self.create();
        }
        if self.word("INSERT") {
            return self.insert();
        }
        if self.word("DROP") {
            return self.drop();
        }
        if self.word("SET") {
            let name = self.name("the name of a setting")?;
            if !self.parser.consume_token(&Token::Eq) {
                self.expect_word("TO", "= or TO")?;
            }
            return Ok(Statement::Set { name, value: self.value()? });
        }
        if self.words(&["EXPLAIN", "BACKFILL"]) {
            let begins = |k| matches!(k, Keyword::CREATE | Keyword::INSERT);
            return Ok(match &self.parser.peek_token_ref().token {
                Token::Word(w) if begins(w.keyword) => Statement::Backfill(Backfill::Of(Box::new(self.parsed()?))),
                _ => Statement::Backfill(Backfill::View(self.name("a statement, or the name of a view")?)),
            });
        }
        if self.words(&["EXPLAIN", "HANDOVER"]) {
            return Ok(Statement::Handover(self.name("the name of a source or a view")?));
        }
        if self.word("EXPLAIN") {
            return Ok(Statement::Explain(Box::new(self.parsed()?)));
        }
        if self.word("DESCRIBE") || self.word("DESC") {
            return Ok(Statement::Describe(self.name("the name of a source, view or table")?));
        }
        match &self.parser.peek_token_ref().token {
            Token::LParen => self.query().map(Statement::Query),
            Token::Word(w)
                if matches!(w.keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES | Keyword::FROM) =>
            {
                self.query().map(Statement::Query)
            }
            _ => {
                let known = "a statement (CREATE, INSERT, DROP, SET, EXPLAIN, DESCRIBE or SELECT)";
                Err(unexpected(known, self.parser.peek_token_ref()))
            }
        }
    }

    fn create(&mut self) -> Result<Statement> {
        let or_replace = self.words(&["OR", "REPLACE"]);
        if self.word("SOURCE") {
            return self.create_source(or_replace);
        }
        if self.words(&["MATERIALIZED", "VIEW"]) {
            let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
            let name = self.name("the name of the view")?;
            let options = self.options()?;
            self.expect_word("AS", "WITH (…) or AS and a query")?;
            let query = self.query()?;
            let emit_every = self.emit_every()?;
            let view = CreateMaterializedView { name, or_replace, if_not_exists, options, query, emit_every };
            return Ok(Statement::CreateMaterializedView(view));
        }
        if self.word("SINK") {
            let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
            let name = self.name("the name of the sink")?;
            let options = self.options()?;
            self.expect_word("AS", "WITH (topic = '…', …) AS and a query")?;
            let sink = CreateSink { name, or_replace, if_not_exists, options, query: self.query()? };
            return Ok(Statement::CreateSink(sink));
        }
        if self.word("VIEW") {
            let name = self.name("the name of the view")?;
            self.expect_word("AS", "AS and a query")?;
            return Ok(Statement::CreateView(CreateView { name, or_replace, query: self.query()? }));
        }
        if self.word("TABLE") {
            return self.create_table(or_replace);
        }
        if self.words(&["EXTERNAL", "TABLE"]) {
            return self.create_external_table(or_replace);
        }
        Err(unexpected("SOURCE, MATERIALIZED VIEW, VIEW, SINK, TABLE or EXTERNAL TABLE", self.parser.peek_token_ref()))
    }

    /// `EMIT EVERY '5 seconds'`, or nothing.
    fn emit_every(&mut self) -> Result<Option<Span>> {
        let at = self.here();
        if !self.words(&["EMIT", "EVERY"]) {
            return Ok(None);
        }
        self.word("INTERVAL");
        let every = parse_span(&self.value()?).filter(|every| every.0 > 0);
        let every =
            every.ok_or_else(|| Error::sql_at("EMIT EVERY is followed by a duration, such as '5 seconds'", at))?;
        Ok(Some(every))
    }

    fn create_source(&mut self, or_replace: bool) -> Result<Statement> {
        let name = self.name("the name of the source")?;
        let (mut columns, mut watermark) = (vec![], None);
        let mut at = self.here();
        if self.parser.consume_token(&Token::LParen) {
            at = self.here();
            loop {
                if self.word("WATERMARK") {
                    if watermark.is_some() {
                        return Err(Error::sql_at("a source has one watermark", self.here()));
                    }
                    watermark = Some(self.watermark()?);
                } else {
                    columns.push(self.parser.parse_column_def().map_err(syntax)?);
                }
                if !self.parser.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect(&Token::RParen, ", or ) (columns of a log, and one watermark)")?;
        }
        let options = self.options()?;
        let value = |option: &str| options.iter().find(|(name, _)| name == option).map(|(_, value)| value.as_str());
        let given = |option: &str| value(option).is_some();
        // Only text does not tell its columns itself.
        let of_text = given("lake") && given("format") && value("tail").is_none_or(|tail| tail == "commits");
        if !columns.is_empty() && !given("tail") && !of_text {
            let message = "expected WATERMARK FOR column AS column - INTERVAL '…': the columns of a source are those of its \
                           table, so leave them out; or, if they are of a folder of JSON or CSV files, say so (format = 'json')";
            return Err(Error::sql_at(message, at));
        }
        if !columns.is_empty() && given("lake") && !of_text {
            let message = "a source with a lake has the columns of its table, for its log too: leave them out";
            return Err(Error::sql_at(message, at));
        }
        let columns = match columns[..] {
            [] => None,
            _ => Some(columns::keyless(&columns, at)?),
        };
        let (time_column, delay) = watermark.map_or((None, Span(0)), |(column, delay)| (Some(column), delay));
        Ok(Statement::CreateSource(CreateSource { name, or_replace, columns, time_column, delay, options }))
    }

    /// What follows WATERMARK: the column, and its delay.
    fn watermark(&mut self) -> Result<(String, Span)> {
        self.expect_word("FOR", "FOR and the time column")?;
        let column = self.name("the time column")?;
        self.expect_word("AS", "AS and the time column again")?;
        let at = self.here();
        if self.name("the time column")? != column {
            let message = format!("a watermark is written WATERMARK FOR {column} AS {column} - INTERVAL '…'");
            return Err(Error::sql_at(message, at));
        }
        if !self.parser.consume_token(&Token::Minus) {
            return Ok((column, Span(0)));
        }
        let at = self.here();
        let interval = self.parser.parse_expr().map_err(syntax)?;
        let delay = window_tables::fixed_interval(&interval).filter(|delay| delay.0 >= 0).ok_or_else(|| {
            Error::sql_at("a delay is an INTERVAL of fixed length, such as INTERVAL '10 minutes'", at)
        })?;
        Ok((column, delay))
    }

    fn create_table(&mut self, or_replace: bool) -> Result<Statement> {
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let name = self.name("the name of the table")?;
        let at = self.here();
        if self.parser.peek_token_ref().token != Token::LParen {
            let message = "expected the table's columns; for the result of a query write CREATE MATERIALIZED VIEW … AS, \
                           or create the table and INSERT INTO it";
            return Err(Error::sql_at(message, at));
        }
        let (columns, constraints) = self.parser.parse_columns().map_err(syntax)?;
        let (columns, primary_key) = columns::keyed(&columns, &constraints, at)?;
        let options = self.options()?;
        Ok(Statement::CreateTable(CreateTable { name, or_replace, if_not_exists, columns, primary_key, options }))
    }

    fn create_external_table(&mut self, or_replace: bool) -> Result<Statement> {
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let name = self.name("the name of the table")?;
        let at = self.here();
        let mut columns = None;
        if self.parser.peek_token_ref().token == Token::LParen {
            let (given, constraints) = self.parser.parse_columns().map_err(syntax)?;
            if let Some(constraint) = constraints.first() {
                let message = format!("{constraint}: constraints are not supported yet; leave it out");
                return Err(Error::sql_at(message, place(constraint).or(at)));
            }
            let (schema, key) = columns::keyed(&given, &constraints, at)?;
            if !key.is_empty() {
                let message = "PRIMARY KEY: an external table is read and never written to; leave the key out";
                return Err(Error::sql_at(message, at));
            }
            columns = Some(schema);
        }
        self.expect_word("STORED", "STORED AS CSV, PARQUET or DELTA")?;
        self.expect_word("AS", "AS and CSV, PARQUET or DELTA")?;
        let format = if self.word("CSV") {
            ExternalFormat::Csv
        } else if self.word("PARQUET") {
            ExternalFormat::Parquet
        } else if self.word("DELTA") || self.word("DELTATABLE") {
            ExternalFormat::Delta
        } else {
            return Err(unexpected("CSV, PARQUET or DELTA", self.parser.peek_token_ref()));
        };
        if columns.is_some() && format != ExternalFormat::Csv {
            return Err(Error::sql_at(
                format!("{format} files say themselves what columns they have: leave them out"),
                at,
            ));
        }
        let before = self.options()?;
        self.expect_word("LOCATION", "LOCATION '…', where the files lie")?;
        let location = self.value()?;
        let options = if before.is_empty() { self.options()? } else { before };
        let table = CreateExternalTable { name, or_replace, if_not_exists, columns, format, location, options };
        Ok(Statement::CreateExternalTable(table))
    }

    fn insert(&mut self) -> Result<Statement> {
        self.expect_word("INTO", "INTO")?;
        let table = self.name("the name of the table")?;
        // WITH may begin a query as well: options have a parenthesis next.
        let begins_options = matches!(self.parser.peek_nth_token_ref(1).token, Token::LParen);
        let options = if begins_options { self.options()? } else { vec![] };
        let listed = match &self.parser.peek_nth_token_ref(1).token {
            Token::Word(w) => !matches!(w.keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES | Keyword::FROM),
            _ => false,
        };
        if listed && self.parser.peek_token_ref().token == Token::LParen {
            let message = "a list of columns is not supported yet: SELECT all columns, in the table's order";
            return Err(Error::sql_at(message, self.here()));
        }
        Ok(Statement::Insert(Insert { table, options, query: self.query()? }))
    }

    fn drop(&mut self) -> Result<Statement> {
        let kind = if self.words(&["MATERIALIZED", "VIEW"]) {
            Kind::MaterializedView
        } else if self.word("VIEW") {
            Kind::View
        } else if self.words(&["EXTERNAL", "TABLE"]) {
            Kind::ExternalTable
        } else if self.word("TABLE") {
            Kind::Table
        } else if self.word("SOURCE") {
            Kind::Source
        } else if self.word("SINK") {
            Kind::Sink
        } else {
            return Err(unexpected(
                "SOURCE, TABLE, EXTERNAL TABLE, VIEW, MATERIALIZED VIEW or SINK",
                self.parser.peek_token_ref(),
            ));
        };
        let if_exists = self.words(&["IF", "EXISTS"]);
        let name = self.name("a name")?;
        let at = self.here();
        let keep_table = self.words(&["KEEP", "TABLE"]);
        if keep_table && kind != Kind::MaterializedView {
            return Err(Error::sql_at("KEEP TABLE goes with DROP MATERIALIZED VIEW only", at));
        }
        Ok(Statement::Drop(Drop { kind, name, if_exists, keep_table }))
    }

    /// `WITH (name = value, …)`, or nothing.
    fn options(&mut self) -> Result<Options> {
        let mut options: Options = vec![];
        if !self.word("WITH") {
            return Ok(options);
        }
        self.expect(&Token::LParen, "( and options")?;
        while !self.parser.consume_token(&Token::RParen) {
            let at = self.here();
            let name = self.option_name()?;
            self.expect(&Token::Eq, "= and a value")?;
            let value = self.value()?;
            if options.iter().any(|(known, _)| *known == name) {
                return Err(Error::sql_at(format!("option {name} is given twice; give it once"), at));
            }
            options.push((name, value));
            if !self.parser.consume_token(&Token::Comma) {
                self.expect(&Token::RParen, ", or )")?;
                break;
            }
        }
        Ok(options)
    }

    /// The name of an option, which may have parts, as in `kafka.security.protocol`.
    fn option_name(&mut self) -> Result<String> {
        let mut name = String::new();
        loop {
            let token = self.parser.peek_token_ref();
            if !matches!(token.token, Token::Word(_)) {
                return Err(unexpected("the name of an option, or )", token));
            }
            name += &self.parser.parse_identifier().map_err(syntax)?.value.to_lowercase();
            if !self.parser.consume_token(&Token::Period) {
                return Ok(name);
            }
            name.push('.');
        }
    }

    /// A value of an option or setting, as text.
    fn value(&mut self) -> Result<String> {
        self.word("INTERVAL");
        let minus = if self.parser.consume_token(&Token::Minus) { "-" } else { "" };
        let token = self.parser.next_token();
        match token.token {
            Token::SingleQuotedString(text) => Ok(text),
            Token::Number(digits, _) => Ok(format!("{minus}{digits}")),
            Token::Word(word) if minus.is_empty() => Ok(match word.quote_style {
                Some(_) => word.value,
                None => word.value.to_lowercase(),
            }),
            _ => Err(unexpected("a value: '…', a number, true or false", &token)),
        }
    }

    fn query(&mut self) -> Result<ast::Query> {
        let at = self.here();
        let query = *self.parser.parse_query().map_err(syntax)?;
        if let ast::SetExpr::Insert(_) | ast::SetExpr::Update(_) | ast::SetExpr::Delete(_) = query.body.as_ref() {
            return Err(Error::sql_at("expected a query", at));
        }
        Ok(query)
    }

    /// One identifier, in lower case unless quoted.
    fn name(&mut self, what: &str) -> Result<String> {
        let token = self.parser.peek_token_ref();
        if !matches!(token.token, Token::Word(_)) {
            return Err(unexpected(what, token));
        }
        let ident = self.parser.parse_identifier().map_err(syntax)?;
        if self.parser.peek_token_ref().token == Token::Period {
            let message = format!("{ident}.…: names have one part here; leave out what stands before the last dot");
            return Err(Error::sql_at(message, span_place(ident.span)));
        }
        Ok(normal(&ident))
    }

    fn is_word(&self, n: usize, word: &str) -> bool {
        match &self.parser.peek_nth_token_ref(n).token {
            Token::Word(w) => w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word),
            _ => false,
        }
    }

    fn word(&mut self, word: &str) -> bool {
        self.words(&[word])
    }

    /// Takes the words if they all come next.
    fn words(&mut self, words: &[&str]) -> bool {
        let all = words.iter().enumerate().all(|(n, word)| self.is_word(n, word));
        if all {
            for _ in words {
                self.parser.next_token();
            }
        }
        all
    }

    fn expect_word(&mut self, word: &str, what: &str) -> Result<()> {
        if self.word(word) { Ok(()) } else { Err(unexpected(what, self.parser.peek_token_ref())) }
    }

    fn expect(&mut self, token: &Token, what: &str) -> Result<()> {
        if self.parser.consume_token(token) { Ok(()) } else { Err(unexpected(what, self.parser.peek_token_ref())) }
    }

    fn here(&self) -> Option<Place> {
        span_place(self.parser.peek_token_ref().span)
    }
}

/// An identifier as DataFusion looks it up.
pub(crate) fn normal(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

fn unexpected(expected: &str, found: &TokenWithSpan) -> Error {
    let found_text = match &found.token {
        Token::EOF => "the end of the text".to_string(),
        token => token.to_string(),
    };
    Error::sql_at(format!("expected {expected}, found {found_text}"), span_place(found.span))
}

/// The parser's error; it ends in the place.
fn syntax(error: ParserError) -> Error {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => {
            "the query is nested too deeply; make views of its inner parts (CREATE VIEW)".to_string()
        }
    };
    let split = text.rsplit_once(" at Line: ").and_then(|(message, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((message, Place { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? }))
    });
    match split {
        Some((message, at)) => Error::sql_at(message, Some(at)),
        None => Error::sql(text),
    }
}
