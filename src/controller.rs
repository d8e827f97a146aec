//! The decision core.
pub mod evidence;
pub mod policy;
