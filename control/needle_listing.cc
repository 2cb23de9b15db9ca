#include "control/needle_listing.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <system_error>

#include "dataplane/volume/needle_list.h"

namespace kelp {
namespace {

constexpr std::string_view kPrefix = "/volumes/";
constexpr std::string_view kSuffix = "/needles";
constexpr std::uint32_t kDefaultLimit = 1000;
constexpr std::uint32_t kLargestLimit = 10'000;
constexpr std::chrono::seconds kLongest{30};

template <class Number>
std::optional<Number> number(std::string_view text) {
  Number value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, failed] = std::from_chars(text.data(), end, value);
  if (failed != std::errc{} || rest != end) return std::nullopt;
  return value;
}

std::optional<VolumeId> volume_of(std::string_view path) {
  if (!path.starts_with(kPrefix) || !path.ends_with(kSuffix)) return std::nullopt;
  path.remove_prefix(kPrefix.size());
  if (path.size() < kSuffix.size()) return std::nullopt;
  path.remove_suffix(kSuffix.size());
  const auto id = number<std::uint32_t>(path);
  return id ? std::optional(VolumeId{*id}) : std::nullopt;
}

Result<NeedlePageRequest> page_request(const HttpRequest& request) {
  NeedlePageRequest page;
  page.limit = kDefaultLimit;
  page.deadline = std::chrono::steady_clock::now() + kLongest;
  for (const auto& [name, value] : request.query) {
    const auto parsed = number<std::uint64_t>(value);
    if (name == "from" && parsed) {
      page.from = *parsed;
    } else if (name == "limit" && parsed && *parsed >= 1 && *parsed <= kLargestLimit) {
      page.limit = static_cast<std::uint32_t>(*parsed);
    } else if (name == "cookies" && parsed && *parsed <= 1) {
      page.cookies = *parsed == 1;
    } else {
      return plain_error("a listing takes from=ID, limit=1.." + std::to_string(kLargestLimit) +
                         " and cookies=0 or 1");
    }
  }
  return page;
}

HttpResponse page_response(VolumeId volume, const NeedlePageRequest& request,
                           const Result<NeedlePage>& page) {
  if (!page) return http_error(500, page.error().what);
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const ListedNeedle& needle : page->needles) {
    nlohmann::ordered_json entry{{"id", static_cast<std::uint64_t>(needle.id)},
                                 {"size", needle.body_bytes},
                                 {"offset", needle.offset_bytes}};
    if (request.cookies) {
      entry["fid"] = nullptr;
      if (needle.cookie) entry["fid"] = format_file_id({volume, needle.id, *needle.cookie});
    }
    list.push_back(std::move(entry));
  }
  nlohmann::ordered_json answer{{"volume", static_cast<std::uint32_t>(volume)},
                                {"needles", std::move(list)},
                                {"next", nullptr}};
  if (page->next) answer["next"] = *page->next;
  HttpResponse response;
  response.body = answer.dump() + "\n";
  return response;
}

}  // namespace

NeedleListing::~NeedleListing() {
  if (job_ != nullptr) job_->stop = true;
  if (thread_.joinable()) thread_.join();
}

HttpResponse NeedleListing::answer(const HttpRequest& request,
                                   const std::vector<const Catalog*>& catalogs) {
  const std::optional<VolumeId> volume = volume_of(request.path);
  if (!volume) return http_error(404, "below /volumes/ there is only /volumes/ID/needles");
  const Result<NeedlePageRequest> page = page_request(request);
  if (!page) return http_error(400, page.error().what);
  const auto owner = owner_of(*volume, static_cast<std::uint32_t>(catalogs.size()));
  const auto files = catalogs[owner]->files(*volume);
  if (!files) return http_error(404, "no volume of that id has its files here");
  if (job_ != nullptr && !job_->done) {
    return http_error(503, "another listing is under way: ask again when it has ended");
  }
  if (thread_.joinable()) thread_.join();
  auto job = std::make_shared<Job>();
  job_ = job;
  try {
    thread_ = std::thread([job, volume, page = *page, files = *files, &control = control_] {
      try {
        job->response =
            page_response(*volume, page, list_needles(files.first, files.second, page, job->stop));
      } catch (const std::exception& error) {  // out of memory
        job->response = http_error(500, error.what());
      }
      job->done = true;
      control.notify();
    });
  } catch (const std::system_error& error) {
    job_.reset();
    return http_error(503, std::string("cannot start a thread: ") + error.what());
  }
  HttpResponse response;
  response.later = [job]() -> std::optional<HttpResponse> {
    if (!job->done) return std::nullopt;
    return std::move(job->response);
  };
  return response;
}

}  // namespace kelp
