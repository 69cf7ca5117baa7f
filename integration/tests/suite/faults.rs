//! Faults: crashes between the steps, dead clients, dead servers, two replicas.
