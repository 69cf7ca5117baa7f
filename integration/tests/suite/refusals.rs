//! What is refused: nothing is minted, and the audit log knows why.
