-- PostgreSQL lets everybody execute a new function.

revoke execute on function {schema}.masked_parked from public;
