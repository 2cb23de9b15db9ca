#include "sidecar/content_type.h"

#include <algorithm>
#include <array>
#include <utility>

namespace kelp::sidecar {
namespace {

constexpr std::string_view kNothingSaid = "application/octet-stream";

constexpr std::array<std::pair<std::string_view, std::string_view>, 17> kByExtension = {{
    {".avif", "image/avif"},
    {".css", "text/css; charset=utf-8"},
    {".gif", "image/gif"},
    {".htm", "text/html; charset=utf-8"},
    {".html", "text/html; charset=utf-8"},
    {".jpeg", "image/jpeg"},
    {".jpg", "image/jpeg"},
    {".js", "text/javascript; charset=utf-8"},
    {".json", "application/json"},
    {".mjs", "text/javascript; charset=utf-8"},
    {".pdf", "application/pdf"},
    {".png", "image/png"},
    {".svg", "image/svg+xml"},
    {".txt", "text/plain; charset=utf-8"},
    {".wasm", "application/wasm"},
    {".webp", "image/webp"},
    {".xml", "text/xml; charset=utf-8"},
}};

bool fits_in_a_header(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

bool equal_but_for_case(std::string_view a, std::string_view b) noexcept {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

}  // namespace

std::string_view content_type(std::string_view mime, std::string_view name) noexcept {
  if (!mime.empty() && !mime.starts_with(kNothingSaid) && fits_in_a_header(mime)) return mime;
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return kNothingSaid;
  for (const auto& [extension, type] : kByExtension) {
    if (equal_but_for_case(extension, name.substr(dot))) return type;
  }
  return kNothingSaid;
}

}  // namespace kelp::sidecar
