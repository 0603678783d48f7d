//! Certificates between operator, gateway and pods: one authority, client identities, a server certificate for each
//! Deployment. The leader makes and renews them as Secrets; every replica reads its own and swaps it while it runs.

mod authority;
mod issue;
mod keep;
mod renewal;
mod secret;

pub use authority::{Authority, AuthorityError, Pair};
pub use issue::{IssueError, Issuer};
pub use keep::keep;
