// The Content-Type of a needle, by what is stored about it. Pure, any thread.
#pragma once

#include <string_view>

namespace kelp::sidecar {

/// The needle's MIME type unless that says nothing (application/octet-stream), else by the
/// extension of its name, else application/octet-stream. What could break a header counts as none.
/// A volume server does the same, but looks into the bytes in the last case.
/// Source: SeaweedFS weed/server/volume_server_handlers_read.go; Go mime/type.go, builtinTypes.
std::string_view content_type(std::string_view mime, std::string_view name) noexcept;

}  // namespace kelp::sidecar
