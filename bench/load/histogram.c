/* Latencies in buckets of 64 to the octave: fixed memory, 1.6 % of error, percentiles at the end. */

#include <stdio.h>

#include "load.h"

static unsigned bucket_of(uint64_t ns) {
    if (ns < 64)
        return (unsigned)ns;
    unsigned octave = 63u - (unsigned)__builtin_clzll(ns);
    return (octave - 5) * 64 + (unsigned)((ns >> (octave - 6)) & 63);
}

static uint64_t middle_of(unsigned bucket) {
    if (bucket < 64)
        return bucket;
    unsigned octave = bucket / 64 + 5;
    uint64_t low = ((uint64_t)64 + bucket % 64) << (octave - 6);
    return low + ((1ull << (octave - 6)) >> 1);
}

void histogram_add(struct histogram *histogram, uint64_t ns) {
    histogram->counts[bucket_of(ns)]++;
    histogram->total++;
    if (ns > histogram->max)
        histogram->max = ns;
}

uint64_t histogram_at(const struct histogram *histogram, double share) {
    uint64_t seen = 0;
    double wanted = share * (double)histogram->total;
    for (unsigned bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->counts[bucket];
        if (seen && (double)seen >= wanted) {
            uint64_t middle = middle_of(bucket);
            return middle < histogram->max ? middle : histogram->max;
        }
    }
    return histogram->max;
}

void histogram_print(const struct histogram *histogram) {
    printf("{\"count\": %llu, \"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}", (unsigned long long)histogram->total,
           (double)histogram_at(histogram, 0.5) / 1e3, (double)histogram_at(histogram, 0.99) / 1e3, (double)histogram->max / 1e3);
}
