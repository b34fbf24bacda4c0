-- `drx-consumer compare` looks them up by when they happened; the others it finds by their prescription.

create index event_of_no_prescription on {schema}.event (event_type, occurred_at) where prescription_id is null;
