use arrow::array::BinaryArray;
use arrow::datatypes::Fields;
use watershed_core::{Error, Result};

use crate::apart::Read;
use crate::facts::Payloads;
use crate::options::Options;

pub(crate) struct Avro;

impl Avro {
    pub(crate) fn new(_: &Options<'_>, _: Fields) -> Result<Self> {
        Err(Error::input("format 'avro' is not supported yet"))
    }
}

impl Payloads for Avro {
    fn read(&self, _: &BinaryArray, _: &[usize]) -> Result<Read> {
        Err(Error::bug("avro"))
    }
}
