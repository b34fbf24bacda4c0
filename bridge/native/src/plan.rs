//! The plan, read from its JSON.

use std::collections::HashMap;

use serde::Deserialize;

/// What `KeyPath::key` checks; a plan with another pattern is refused.
const KEY_PATTERN: &str = "[A-Za-z0-9._:-]{1,128}";
const KEY_MAX: usize = 128;

#[derive(Deserialize)]
pub struct Plan {
    version: String,
    key_pattern: String,
    pub ahead_max_us: i64,
    pub environments: HashMap<String, Hex>,
    pub events: HashMap<String, EventPlan>,
}

#[derive(Deserialize)]
pub struct EventPlan {
    pub key: Vec<KeyPath>,
    pub fields: Vec<Field>,
}

#[derive(Deserialize)]
pub struct KeyPath {
    path: Vec<String>,
    prefix: String,
    reserved: Vec<String>,
}

#[derive(Deserialize)]
pub struct Field {
    pub origin: Origin,
    pub member: String,
    pub kind: Option<Kind>,
    pub nullable: bool,
    pub absent: Option<Hex>,
    /// Which of the event's key paths ends here.
    #[serde(skip)]
    pub key: Option<usize>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    EventId,
    OccurredAt,
    ReceivedAt,
    Source,
    Environment,
    Constant,
    Envelope,
    Member,
}

#[derive(Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Kind {
    Text,
    Word { words: HashMap<String, Hex> },
    Boolean,
    Integer { least: i64, greatest: i64 },
    Decimal { precision: u32, scale: usize },
    Day,
    Instant,
    Map,
    Array { items: Box<Kind> },
    Record { fields: Vec<Field> },
    // Not in a plan's JSON: the body, and those of its members that the plan describes in prose.
    Body,
    WebhookId,
    OccurredAt,
    Environment,
    Data,
}

/// Bytes that the plan has in hexadecimal.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub struct Hex(pub Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let nibble = |digit: &u8| char::from(*digit).to_digit(16);
        let byte = |pair: &[u8]| Some((nibble(pair.first()?)? << 4 | nibble(pair.get(1)?)?) as u8);
        text.as_bytes().chunks(2).map(byte).collect::<Option<_>>().map(Hex).ok_or("not hexadecimal")
    }
}

impl Plan {
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let mut plan: Plan = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if plan.key_pattern != KEY_PATTERN {
            return Err("another key pattern".into());
        }
        for (event_type, event) in &mut plan.events {
            event.add_envelope(event_type, &plan.version);
            for (place, key) in event.key.iter().enumerate() {
                let (origin, path) = match &key.path[..] {
                    [first, rest @ ..] if first == "data" => (Origin::Member, rest),
                    path => (Origin::Envelope, path),
                };
                mark(&mut event.fields, origin, path, place).ok_or("no text at the path of a key")?;
            }
        }
        Ok(plan)
    }
}

impl EventPlan {
    /// Describe the other members of the body as fields, too: of some bytes where the record has them, else of none.
    fn add_envelope(&mut self, event_type: &str, version: &str) {
        let field = |member: &str, kind, absent| {
            let (origin, member, kind) = (Origin::Envelope, member.into(), Some(kind));
            Field { origin, member, kind, nullable: false, absent, key: None }
        };
        for each in &mut self.fields {
            match each.origin {
                Origin::OccurredAt => *each = field("timestamp", Kind::OccurredAt, None),
                Origin::Environment => *each = field("environment", Kind::Environment, None),
                _ => (),
            }
        }
        let only = |text: &str| Kind::Word { words: HashMap::from([(text.into(), Hex(Vec::new()))]) };
        self.fields.extend([
            field("id", Kind::WebhookId, Some(Hex(Vec::new()))),
            field("type", only(event_type), None),
            field("version", only(version), None),
            field("data", Kind::Data, None),
        ]);
    }
}

/// Have the field at `path` keep its text as a candidate for the key.
fn mark(fields: &mut [Field], origin: Origin, path: &[String], place: usize) -> Option<()> {
    let (name, rest) = path.split_first()?;
    let field = fields.iter_mut().find(|field| field.origin == origin && field.member == *name)?;
    match &mut field.kind {
        Some(Kind::Text) if rest.is_empty() => field.key = Some(place),
        Some(Kind::Record { fields }) => mark(fields, Origin::Member, rest, place)?,
        _ => return None,
    }
    Some(())
}

impl KeyPath {
    pub fn is_prescription_id(&self) -> bool {
        self.path == ["data", "prescription_id"]
    }

    /// Return the key, if what stands at the path makes one.
    pub fn key(&self, found: &str) -> Option<String> {
        let key = format!("{}{found}", self.prefix);
        let conforms = !found.is_empty()
            && key.len() <= KEY_MAX
            && key.bytes().all(|each| each.is_ascii_alphanumeric() || b"._:-".contains(&each))
            && !self.reserved.iter().any(|prefix| found.starts_with(prefix));
        conforms.then_some(key)
    }
}
