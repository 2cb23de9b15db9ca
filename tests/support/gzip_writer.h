// Makes gzip streams with zlib, to hold an inflater against.
#pragma once

#include <zlib.h>

#include <cstddef>
#include <span>
#include <stdexcept>
#include <vector>

namespace kelp::test {

/// One gzip member; `header` adds the optional header fields zlib knows.
inline std::vector<std::byte> gzip_member(std::span<const std::byte> plain, int level = 6,
                                          gz_header* header = nullptr) {
  constexpr int kGzipWindowBits = 15 + 16;
  constexpr std::size_t kHeaderBytesMax =
      70'000;  // deflateBound is asked before the header is known
  z_stream stream{};
  if (deflateInit2(&stream, level, Z_DEFLATED, kGzipWindowBits, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::runtime_error("deflateInit2");
  }
  if (header != nullptr) deflateSetHeader(&stream, header);
  std::vector<std::byte> packed(deflateBound(&stream, plain.size()) + kHeaderBytesMax);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  const int rc = deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  if (rc != Z_STREAM_END) throw std::runtime_error("deflate");
  return packed;
}

}  // namespace kelp::test
