"""The records that many events share: patient, prescriber, pharmacy, medication, network status, address.

Of a person, address or drug only the name is required, since real senders omit the rest.
"""

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal

from bridge.contract.fields import Bits, Characters, ContractRecord, Digits, Direct, Linked

Int = Annotated[int, Bits(32)]
Long = Annotated[int, Bits(64)]
Quantity = Annotated[Decimal, Digits(precision=12, scale=3)]
ShortText = Annotated[str, Characters(most=64)]
Money = Annotated[Decimal, Digits(precision=10, scale=2)]

DeaSchedule = Literal["II", "III", "IV", "V", "UNKNOWN"]


class Address(ContractRecord):
    """A postal address."""

    line1: Direct[str | None] = None
    line2: Direct[str | None] = None
    city: Direct[str | None] = None
    state: Direct[str | None] = None
    postal_code: Direct[str | None] = None
    country: Direct[str | None] = None


class Patient(ContractRecord):
    """The person the prescription is for."""

    id: Direct[str | None] = None
    mrn: Direct[str | None] = None
    first_name: Direct[str | None] = None
    last_name: Direct[str]
    middle_name: Direct[str | None] = None
    date_of_birth: Direct[date | None] = None
    sex: Direct[Literal["F", "M", "U", "UNKNOWN"] | None] = None
    raw_sex: Direct[str | None] = None
    phone: Direct[str | None] = None
    email: Direct[str | None] = None
    address: Direct[Address | None] = None


class Prescriber(ContractRecord):
    """Who prescribes, or on whose behalf an agent acts."""

    id: str | None = None
    npi: str | None = None
    spi: str | None = None
    dea_number: str | None = None
    first_name: str | None = None
    last_name: str
    agent_id: str | None = None
    supervisor_npi: str | None = None


class Pharmacy(ContractRecord):
    """Where the prescription goes."""

    ncpdp_id: str | None = None
    npi: str | None = None
    name: str
    phone: str | None = None
    fax: str | None = None
    address: Direct[Address | None] = None


class Medication(ContractRecord):
    """What is ordered, asked for or dispensed."""

    description: Linked[str]
    ndc: Linked[str | None] = None
    rxcui: Linked[str | None] = None
    dea_schedule: Linked[DeaSchedule | None] = None
    raw_dea_schedule: Linked[str | None] = None
    quantity: Linked[Quantity | None] = None
    quantity_unit: Linked[str | None] = None
    days_supply: Linked[Int | None] = None
    refills: Linked[Int | None] = None
    sig: Linked[str | None] = None
    substitution_allowed: Linked[bool | None] = None
    note: Linked[str | None] = None
    written_date: Linked[date | None] = None
    effective_date: Linked[date | None] = None


class NetworkStatus(ContractRecord):
    """SCRIPT Status, Verify or Error; the codes are open strings."""

    kind: Literal["status", "verify", "error", "UNKNOWN"]
    raw_kind: str | None = None
    code: str
    description_code: str | None = None
    description: str | None = None
