//! The native engine of drx-bridge: from the body of a delivery to the bytes of its Avro record.
//!
//! It answers a *plainly conforming* delivery with what the reference code in Python would have made of it, byte for byte,
//! and any other with None; then the reference decides from the start. So no rule of the contract is defined here. What an
//! engine knows is the plan, which `bridge/engine/plan.py` derives from models and schemas and describes in full: what
//! conforms plainly, which kinds of values there are, how each is written. It comes as JSON, once, at the start
//! (`plan.rs`). A plan that this crate does not understand is refused, and the Python engine is used.
//!
//! **Reading.** serde_json reads the body twice: once for its `type`, which says what all the rest means, and once for the
//! members (`encoder.rs`). It calls a visitor for each value; the visitor knows the kind that the plan has for the value,
//! checks it and appends the encoded bytes to `out`. Nothing is made of a document. A slot for each field of the record
//! remembers where its bytes are, since members come in any order. When an object ends, its fields are written in the
//! order of the schema, and take the place of what was read. The members of `data` and those of the body fill the same
//! record. Members of the body that are no field of it are fields without bytes, so whether they are there, once, and say
//! what they must is checked as for any other.
//!
//! **Strictness.** serde_json accepts RFC 8259 and nothing else: no byte order mark, no control character in a string, no
//! lone surrogate, nothing behind the object. It reads `-0`, fractions, exponents and integers of more than 64 bits as
//! floating point, for which no kind has a use. A name that occurs twice finds its slot taken. An unknown name, also one
//! that is spelt with an escape, finds none. Whatever is nested deeper than the plan is under an unknown name or has the
//! wrong kind. Times, dates and decimals have parsers of their own (`scalars.rs`), since those of libraries accept more.
//!
//! **Panics** are bugs, and cost time, nothing else: one is caught, becomes a `RuntimeError`, and the bridge counts it and
//! takes the reference. Nothing is printed, since the text of a panic may hold a piece of the body. Arithmetic is checked
//! for overflow in releases, too: a panic is better than a wrong record. There is no `unsafe` here.
//!
//! **Version.** The crate has the version of the bridge, and the bridge takes no other.
//!
//! **Dependencies** are pinned: each version and checksum is in `crates.lock`. This is a Cargo.lock without the `source`
//! lines, because they name the host of a registry, and which one is used is for the configuration of cargo to say.
//! `lock.py` puts them back, and cargo builds `--locked`, so it checks every crate against the lock. Vendoring instead
//! would put 20 crates into the repository; a list of checksums beside an ordinary `cargo update` would be checked by code
//! of ours instead of cargo.
#![forbid(unsafe_code)]

mod encoder;
mod plan;
pub mod scalars;

use pyo3::prelude::*;

/// Encodes plainly conforming deliveries, of any source, by one plan.
#[pymodule]
mod drx_bridge_native {
    use std::panic::{catch_unwind, AssertUnwindSafe};

    use pyo3::exceptions::{PyRuntimeError, PyValueError};
    use pyo3::prelude::*;
    use pyo3::types::{PyBytes, PyString};

    use crate::encoder::{encode, Delivery};
    use crate::plan::Plan;

    /// Type, key, prescription id, when it happened in microseconds since 1970, record.
    type Event<'py> = (&'py str, Bound<'py, PyString>, Option<Bound<'py, PyString>>, i64, Bound<'py, PyBytes>);

    #[pyclass(frozen)]
    struct Encoder {
        plan: Plan,
    }

    #[pymethods]
    impl Encoder {
        #[new]
        fn new(plan: &[u8]) -> PyResult<Self> {
            Ok(Self { plan: Plan::from_json(plan).map_err(PyValueError::new_err)? })
        }

        #[pyo3(signature = (body, webhook_id, source, environment, received_us, /))]
        fn encode<'a>(
            &'a self,
            py: Python<'a>,
            body: &[u8],
            webhook_id: &str,
            source: &str,
            environment: &str,
            received_us: i64,
        ) -> PyResult<Option<Event<'a>>> {
            let delivery = Delivery { body, webhook_id, source, environment, received_us };
            let found = catch_unwind(AssertUnwindSafe(|| encode(&self.plan, &delivery)))
                .map_err(|_| PyRuntimeError::new_err("panic"))?;
            Ok(found.map(|event| {
                let key = PyString::new(py, &event.key);
                let prescription_id = event.is_prescription_id.then(|| key.clone());
                (event.event_type, key, prescription_id, event.occurred_us, PyBytes::new(py, &event.record))
            }))
        }
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // The text of a panic may hold a piece of the body.
        std::panic::set_hook(Box::new(|_| ()));
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
