/** Loaded before a router whose wall clock is to be wrong by CRASH_CLOCK_SKEW_MS. */
const skewMs = Number(process.env['CRASH_CLOCK_SKEW_MS'] ?? 0);
const now = Date.now;
Date.now = () => now() + skewMs;
