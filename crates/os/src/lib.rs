//! musher-os
