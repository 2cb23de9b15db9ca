// One attempt at a read or a stat by HTTP: what to ask a volume server, and what its answer means.
//
// Bytes go straight into the client's buffer; everything is judged from the headers and from
// libcurl's own memory, nothing from the buffer. Source: format reference, 6.4 to 6.10.
// Gateway thread only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "control/gateway/circuit_breaker.h"
#include "control/http_client.h"
#include "dataplane/volume/read_request.h"
#include "shm_ring/file_id.h"

namespace kelp {

/// What is wanted, of whichever server.
struct HttpReadRequest {
  FileId fid;
  bool stat = false;
  std::uint64_t offset_bytes = 0;
  std::span<std::byte> destination;  ///< the client's memory; never empty
};

class HttpRead final : public HttpSink {
 public:
  explicit HttpRead(const HttpReadRequest& wanted) : wanted_(wanted) {}
  HttpRead(const HttpRead&) = delete;
  HttpRead& operator=(const HttpRead&) = delete;

  /// `base` is "http://host:port"; `token` may be empty. The caller adds the deadlines.
  HttpClient::Request request(const std::string& base, const std::string& token);

  bool begin(const HttpHead& head) override;
  bool take(std::span<const std::byte> part) override;

  enum class Verdict : std::uint8_t {
    kDone,       ///< `outcome` is the answer
    kNotHere,    ///< 404: it is nowhere, or the volume has moved
    kElsewhere,  ///< this server cannot tell, another replica may
    kAskMore,    ///< it leaves something open: request() again asks the same server for that
  };
  struct Result {
    Verdict verdict = Verdict::kElsewhere;
    ReadOutcome outcome;
    std::optional<CircuitBreaker::Failure> failure;  ///< what it says about the server
    std::string reason;                              ///< unless kDone: one clause
    bool redirected = false;                         ///< it wanted us to ask somebody else
  };
  /// Once the request has ended.
  Result finish(const HttpAnswer& answer);

 private:
  enum class Asked : std::uint8_t {
    kRange,     ///< the bytes
    kHead,      ///< how long it is, and what a stat tells
    kEncoding,  ///< whether it is stored compressed: then the ETag is not that of the bytes
    kStored,    ///< what is stored, of something that is empty when it is inflated
  };

  bool begin_range(const HttpHead& head);
  bool take_stored(std::span<const std::byte> part);
  void look_at(const HttpHead& head);
  Result judge(const HttpAnswer& answer);
  Result judge_range(const HttpAnswer& answer);
  Result judge_head();
  Result judge_encoding();
  Result judge_stored();
  Result ask_more(Asked what);
  Result broken(std::string why) const;
  void write_stat(ReadOutcome& outcome) const;
  bool is_empty_and_stored() const noexcept;

  const HttpReadRequest wanted_;
  Asked asked_ = Asked::kRange;
  std::string fault_;  // why begin() or take() ended the request
  int status_ = 0;
  std::uint64_t total_bytes_ = 0;
  bool total_known_ = false;
  std::uint64_t expected_bytes_ = 0;
  std::uint64_t taken_bytes_ = 0;
  std::uint32_t crc_ = 0;  // of what was taken
  std::optional<std::uint32_t> etag_crc_;
  std::optional<std::uint32_t> first_etag_crc_;  // of the answer that left something open
  ReadOutcome unproven_;                         // what it came to
  bool encoded_ = false;
  std::vector<std::byte> stored_;
  bool stored_too_long_ = false;
  bool chunk_manifest_ = false;
  std::uint64_t modified_s_ = 0;
  std::string name_;
  std::string mime_;
};

}  // namespace kelp
