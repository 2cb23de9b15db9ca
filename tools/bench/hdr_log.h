// Writes histograms as an HdrHistogram log, format version 1.3: what HistogramLogAnalyzer,
// HistogramLogProcessor and hdr-plot read. One thread.
//
//   #[Histogram log format version 1.3]
//   #[StartTime: <Unix seconds> (seconds since epoch), <the same for people>]
//   "StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"
//   Tag=<tag>,<start s>,<length s>,<max ms>,<base64 of the compressed V2 encoding>
//
// Source: HdrHistogram 2.1 (github.com/HdrHistogram/HdrHistogram), HistogramLogWriter.java and
// AbstractHistogram.encodeIntoCompressedByteBuffer().
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "shm_ring/histogram.h"

namespace kelp::bench {

/// The comment lines and the header. `start_unix_s` is what later timestamps are relative to.
std::string hdr_log_head(double start_unix_s);

/// One line: what was recorded in [start_s, start_s + length_s). `tag` has no comma or space.
std::string hdr_log_line(const std::string& tag, double start_s, double length_s,
                         const Histogram& histogram);

}  // namespace kelp::bench
