//! decision_log
