//! The audit of a sale's books.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::SaleId;

/// A violated promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// Number of the promise in the design: 1 to 6.
    pub promise: u8,
    /// Which sale.
    pub sale_id: SaleId,
    /// What is wrong.
    pub what: String,
    /// The ids of the orders or users concerned, at most twenty.
    pub ids: Vec<String>,
}

/// The books of one sale.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct SaleBooks {
    pub sale_id: SaleId,
    pub title: String,
    pub stock: u32,
    pub available: u32,
    pub reserved: u32,
    pub sold: u32,
    pub findings: Vec<Finding>,
}
