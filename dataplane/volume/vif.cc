#include "dataplane/volume/vif.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <exception>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "shm_ring/unique_fd.h"

namespace kelp {
namespace {

using Json = nlohmann::json;

constexpr int kDepthMax = 8;  // a .vif has 3: the object, its files, their fields

tl::unexpected<Error> bad_vif(const std::string& why) {
  return plain_error("cannot use a .vif: " + why + "; reads of this volume go to its server");
}

/// Refuses, while parsing, what a finished Json no longer shows: depth and repeated names.
class ShapeGuard {
 public:
  bool operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    if (!complaint_.empty()) return false;
    if (depth > kDepthMax) complaint_ = "it is nested too deeply";
    if (event == Json::parse_event_t::object_start) names_.emplace_back();
    if (event == Json::parse_event_t::object_end && !names_.empty()) names_.pop_back();
    if (event == Json::parse_event_t::key && !names_.empty()) {
      const auto& name = parsed.get_ref<const std::string&>();
      if (!names_.back().insert(name).second) complaint_ = "it has two fields named " + name;
    }
    return complaint_.empty();  // false drops the value: a refused text costs no memory
  }

  const std::string& complaint() const { return complaint_; }

 private:
  std::vector<std::set<std::string>> names_;  // of the objects being parsed, outermost first
  std::string complaint_;
};

/// Takes fields out of one JSON object by any of their names, and keeps the first complaint.
class FieldReader {
 public:
  explicit FieldReader(const Json& object) : object_(object) {}

  /// An integer as a number or a string of digits; anything else is a complaint.
  template <class Unsigned>
  void read(Unsigned& target, std::initializer_list<const char*> names) {
    const Json* const value = find(names);
    if (value == nullptr) return;
    std::uint64_t number = 0;
    if (!to_integer(*value, number) || number > std::numeric_limits<Unsigned>::max()) {
      return complain(names, "is not a whole number in range");
    }
    target = static_cast<Unsigned>(number);
  }

  void read(bool& target, std::initializer_list<const char*> names) {
    const Json* const value = find(names);
    if (value == nullptr) return;
    if (!value->is_boolean()) return complain(names, "is neither true nor false");
    target = value->get<bool>();
  }

  void read(std::string& target, std::initializer_list<const char*> names) {
    const Json* const value = find(names);
    if (value == nullptr) return;
    if (!value->is_string()) return complain(names, "is not a string");
    target = value->get<std::string>();
  }

  /// The value under any of `names`; nullptr if absent, null, or given under two of them.
  const Json* find(std::initializer_list<const char*> names) {
    const Json* found = nullptr;
    for (const char* name : names) {
      const auto field = object_.find(name);
      known_.insert(name);
      if (field == object_.end()) continue;
      if (found != nullptr) {
        complain(names, "is given in two spellings");
        return nullptr;
      }
      found = &*field;
    }
    return found != nullptr && found->is_null() ? nullptr : found;
  }

  void complain(std::initializer_list<const char*> names, const char* what) {
    if (complaint_.empty()) complaint_ = std::string(*names.begin()) + " " + what;
  }

  /// After all reads: nothing may be left that none of them asked for.
  void refuse_unknown(const char* where) {
    for (const auto& field : object_.items()) {
      if (known_.contains(field.key())) continue;
      complain({where}, "has a field this version does not know");
    }
  }

  const std::string& complaint() const { return complaint_; }

 private:
  static bool to_integer(const Json& value, std::uint64_t& number) {
    if (value.is_number_unsigned()) {
      number = value.get<std::uint64_t>();
      return true;
    }
    if (!value.is_string()) return false;  // negative, fractional, or beyond 64 bits
    const auto& text = value.get_ref<const std::string&>();
    const char* const end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, number);
    return error == std::errc{} && stopped == end;
  }

  const Json& object_;
  std::set<std::string> known_;
  std::string complaint_;
};

/// Each of these answers the first complaint, or nothing.
std::string read_ec(const Json& object, EcShardConfig& ec) {
  if (!object.is_object()) return "ecShardConfig is not an object";
  FieldReader fields(object);
  std::uint64_t encode_ts_ns = 0;  // the identity of an encoding; nothing here needs it
  fields.read(ec.data_shards, {"dataShards", "data_shards"});
  fields.read(ec.parity_shards, {"parityShards", "parity_shards"});
  fields.read(ec.block_bytes, {"blockSize", "block_size"});
  fields.read(encode_ts_ns, {"encodeTsNs", "encode_ts_ns"});
  fields.refuse_unknown("ecShardConfig");
  return fields.complaint();
}

std::string read_info(const Json& object, VolumeInfo& info) {
  FieldReader fields(object);
  std::uint32_t width = 0;
  fields.read(info.version, {"version"});
  fields.read(info.replication, {"replication"});
  fields.read(width, {"bytesOffset", "bytes_offset", "BytesOffset"});
  fields.read(info.dat_file_bytes, {"datFileSize", "dat_file_size"});
  fields.read(info.expire_at_s, {"expireAtSec", "expire_at_sec", "DestroyTime"});
  fields.read(info.read_only, {"readOnly", "read_only"});
  if (width == 0 || width == 4 || width == 5) {
    info.bytes_offset = static_cast<OffsetWidth>(width);
  } else {
    fields.complain({"bytesOffset"}, "is not 0, 4 or 5");
  }

  if (const Json* const files = fields.find({"files"})) {
    if (!files->is_array()) fields.complain({"files"}, "is not a list");
    info.tiered = !files->empty();
  }
  const Json* const ec = fields.find({"ecShardConfig", "ec_shard_config"});
  if (!fields.complaint().empty() || ec == nullptr) return fields.complaint();
  return read_ec(*ec, info.ec);
}

Result<VolumeInfo> parse_or_throw(std::string_view text) {
  VolumeInfo info;
  if (text.empty()) return info;
  if (text.size() > kVifBytesMax) return bad_vif("it is longer than any .vif");

  // The library takes a NUL for the end of the text and would not look at what follows.
  if (text.find('\0') != std::string_view::npos) return bad_vif("it holds a NUL byte");

  ShapeGuard guard;
  const auto watch = [&guard](int depth, Json::parse_event_t event, const Json& parsed) {
    return guard(depth, event, parsed);
  };
  const Json object = Json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (!guard.complaint().empty()) return bad_vif(guard.complaint());
  if (!object.is_object()) return bad_vif("it is not one whole JSON object");

  const std::string complaint = read_info(object, info);
  if (!complaint.empty()) return bad_vif(complaint);
  return info;
}

}  // namespace

Result<VolumeInfo> parse_vif(std::string_view text) {
  try {
    return parse_or_throw(text);
  } catch (const std::exception& error) {
    return bad_vif(error.what());
  }
}

Result<std::string> read_vif(const std::string& path) {
  // Opening a FIFO to read waits for a writer, for ever perhaps; with O_NONBLOCK it does not.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd && errno == ENOENT) return std::string();
  if (!fd) return system_error("cannot open " + path);
  std::string text(kVifBytesMax + 1, '\0');
  const ssize_t got = ::read(fd.get(), text.data(), text.size());
  if (got < 0) return system_error("cannot read " + path);
  text.resize(static_cast<std::size_t>(got));
  return text;
}

}  // namespace kelp
