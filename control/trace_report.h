// GET /trace: which ways there are to a needle at this moment, in the order they would be tried,
// and why one is not taken. Reads nothing of the needle. Control thread, like reports.h.
#pragma once

#include <string>
#include <vector>

#include "control/reports.h"
#include "shm_ring/file_id.h"

namespace kelp {

/// {"fid", "volume", "needle", "cookie", "local": {...}, "remote": {...} or null,
///  "paths": [{"path", "server", "usable", "why"}], "resolving"}
/// "resolving": the gateway does not know yet where the volume is; ask again.
std::string trace_json(const FileId& fid, const ReportSources& sources);

/// The same, of `volumes` in place of those of the workers; sorted by key.
std::string trace_json(const FileId& fid, const std::vector<VolumeReport>& volumes,
                       const ReportSources& sources);

}  // namespace kelp
