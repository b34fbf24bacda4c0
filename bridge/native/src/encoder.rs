//! From a body to the bytes of its record.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::Deserialize;

use crate::plan::{EventPlan, Field, Kind, Origin, Plan};
use crate::scalars::{day, decimal, instant, number, text};

/// The second branch of `["null", T]`.
const VALUE: u8 = 2;
/// The empty block that ends an array or a map.
const END: u8 = 0;
/// Twice the body and this much is room for nearly every record and what it is made of.
const ROOM: usize = 512;

pub struct Delivery<'a> {
    pub body: &'a [u8],
    pub webhook_id: &'a str,
    pub source: &'a str,
    pub environment: &'a str,
    pub received_us: i64,
}

pub struct Encoded<'p> {
    pub event_type: &'p str,
    pub key: String,
    pub is_prescription_id: bool,
    pub occurred_us: i64,
    pub record: Vec<u8>,
}

/// What says how to read the rest.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
}

/// Return the event of a body, or None if the delivery does not conform plainly.
pub fn encode<'p>(plan: &'p Plan, delivery: &Delivery) -> Option<Encoded<'p>> {
    let body = std::str::from_utf8(delivery.body).ok()?;
    let head: Head = serde_json::from_str(body).ok()?;
    let (event_type, event) = plan.events.get_key_value(head.event_type)?;
    let mut run = Run {
        plan,
        event,
        delivery,
        out: Vec::with_capacity(2 * body.len() + ROOM),
        slots: vec![Slot::Unseen; event.fields.len()],
        keys: Vec::new(),
        occurred_us: 0,
    };
    serde_json::Deserializer::from_str(body)
        .deserialize_any(Value { run: &mut run, kind: &Kind::Body, key: None })
        .ok()?;
    if run.occurred_us - delivery.received_us > plan.ahead_max_us {
        return None;
    }
    let (place, found) = run.keys.iter().min()?;
    let path = &event.key[*place];
    let key = path.key(found)?;
    run.close(&event.fields, 0, 0)?;
    let occurred_us = run.occurred_us;
    Some(Encoded { event_type, key, is_prescription_id: path.is_prescription_id(), occurred_us, record: run.out })
}

/// What is known of the member of a field.
#[derive(Clone, Copy, PartialEq)]
enum Slot {
    Unseen,
    Null,
    /// Where in `out` it is, encoded.
    At(usize, usize),
}

struct Run<'p, 'd> {
    plan: &'p Plan,
    event: &'p EventPlan,
    delivery: &'d Delivery<'d>,
    out: Vec<u8>,
    /// Those of all open objects, the innermost last.
    slots: Vec<Slot>,
    /// Which path of the event's key, and what is there.
    keys: Vec<(usize, String)>,
    occurred_us: i64,
}

impl<'p> Run<'p, '_> {
    /// Read the members of an object that fill fields of this origin, whose first slot is `base`.
    fn read<'de, A>(&mut self, fields: &'p [Field], origin: Origin, base: usize, mut map: A) -> Result<(), A::Error>
    where
        A: MapAccess<'de>,
    {
        let mut next = 0; // members often come in the order of the schema
        while let Some(name) = map.next_key::<&str>()? {
            let is_it = |place: &usize| fields[*place].origin == origin && fields[*place].member == name;
            let place = (next..fields.len()).chain(0..next).find(is_it).ok_or_else(defer)?;
            let Field { kind: Some(kind), key, .. } = &fields[place] else { return Err(defer()) };
            if self.slots[base + place] != Slot::Unseen {
                return Err(defer());
            }
            let start = self.out.len();
            let is_there = map.next_value_seed(Value { run: self, kind, key: *key })?;
            let end = self.out.len();
            self.slots[base + place] = match kind {
                _ if !is_there => Slot::Null,
                Kind::Data => Slot::At(end, end), // its members have slots of their own
                _ => Slot::At(start, end),
            };
            next = place + 1;
        }
        Ok(())
    }

    /// Write the fields of a record, whose first slot is `base`, over what was read of it from `start` on.
    fn close(&mut self, fields: &[Field], base: usize, start: usize) -> Option<()> {
        let end = self.out.len();
        for (field, slot) in fields.iter().zip(base..) {
            match (field.origin, self.slots[slot]) {
                (Origin::EventId, _) => text(&mut self.out, self.delivery.webhook_id),
                (Origin::ReceivedAt, _) => number(&mut self.out, self.delivery.received_us),
                (Origin::Source, _) => text(&mut self.out, self.delivery.source),
                (_, Slot::At(from, to)) => {
                    self.out.extend(field.nullable.then_some(VALUE));
                    self.out.extend_from_within(from..to);
                }
                _ => self.out.extend_from_slice(&field.absent.as_ref()?.0),
            }
        }
        self.slots.truncate(base);
        self.out.drain(start..end);
        Some(())
    }

    /// Make what was read of an array or a map, from `start` on, its only block, with the count in front.
    fn end_block(&mut self, start: usize, count: usize) {
        if count > 0 {
            let end = self.out.len();
            number(&mut self.out, count as i64);
            let size = self.out.len() - end;
            self.out[start..].rotate_right(size);
        }
        self.out.push(END);
    }
}

fn defer<E: Error>() -> E {
    E::custom("")
}

/// A value of a kind, appended to `out`; false, and nothing, if it is null.
struct Value<'r, 'p, 'd> {
    run: &'r mut Run<'p, 'd>,
    kind: &'p Kind,
    key: Option<usize>,
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_, '_> {
    type Value = bool;

    fn expecting(&self, _: &mut fmt::Formatter) -> fmt::Result {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        let Kind::Boolean = self.kind else { return Err(defer()) };
        self.run.out.push(u8::from(value));
        Ok(true)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        match self.kind {
            Kind::Integer { least, greatest } if (least..=greatest).contains(&&value) => {
                number(&mut self.run.out, value);
                Ok(true)
            }
            _ => Err(defer()),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        self.visit_i64(i64::try_from(value).map_err(E::custom)?)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<bool, E> {
        let Run { plan, delivery, out, keys, occurred_us, .. } = self.run;
        match self.kind {
            Kind::Text => {
                text(out, value);
                keys.extend(self.key.map(|place| (place, value.to_owned())));
            }
            Kind::Word { words } => out.extend_from_slice(&words.get(value).ok_or_else(defer)?.0),
            Kind::Day => number(out, day(value.as_bytes()).ok_or_else(defer)?),
            Kind::Instant => number(out, instant(value).ok_or_else(defer)?),
            Kind::Decimal { precision, scale } => decimal(out, value, *precision, *scale).ok_or_else(defer)?,
            Kind::OccurredAt => {
                *occurred_us = instant(value).ok_or_else(defer)?;
                number(out, *occurred_us);
            }
            Kind::Environment if value == delivery.environment => {
                out.extend_from_slice(&plan.environments.get(value).ok_or_else(defer)?.0);
            }
            Kind::WebhookId if value == delivery.webhook_id => (),
            _ => return Err(defer()),
        }
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let Kind::Array { items: kind } = self.kind else { return Err(defer()) };
        let start = self.run.out.len();
        let mut count = 0;
        while let Some(is_there) = items.next_element_seed(Value { run: self.run, kind, key: None })? {
            if !is_there {
                return Err(defer());
            }
            count += 1;
        }
        self.run.end_block(start, count);
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let run = self.run;
        let (event, start, base) = (run.event, run.out.len(), run.slots.len());
        match self.kind {
            Kind::Body => run.read(&event.fields, Origin::Envelope, 0, map)?,
            Kind::Data => run.read(&event.fields, Origin::Member, 0, map)?,
            Kind::Record { fields } => {
                run.slots.resize(base + fields.len(), Slot::Unseen);
                run.read(fields, Origin::Member, base, map)?;
                run.close(fields, base, start).ok_or_else(defer)?;
            }
            Kind::Map => {
                let mut names = HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    text(&mut run.out, &name);
                    text(&mut run.out, &value);
                    if !names.insert(name) {
                        return Err(defer());
                    }
                }
                run.end_block(start, names.len());
            }
            _ => return Err(defer()),
        }
        Ok(true)
    }
}
