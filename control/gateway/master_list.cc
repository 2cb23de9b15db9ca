#include "control/gateway/master_list.h"

#include <string_view>

#include "control/gateway/server_address.h"
#include "control/log.h"

namespace kelp {
namespace {

/// What a path is put behind: with a scheme, without a slash at the end or SeaweedFS's gRPC port.
std::string root_of(const std::string& url, bool https) {
  const bool has_scheme = url.find("://") != std::string::npos;
  const bool secure = has_scheme ? url.starts_with("https://") : https;
  const std::string scheme = secure ? "https://" : "http://";
  if (const auto address = parse_server_address(url)) return scheme + address->text();
  // A URL that is more than an address, as of a proxy before the masters.
  std::string root = has_scheme ? url : scheme + url;
  if (root.ends_with('/')) root.pop_back();
  return root;
}

}  // namespace

MasterList::MasterList(const std::vector<std::string>& urls, bool https) {
  for (const std::string& url : urls) {
    order_.push_back(reports_.size());
    reports_.emplace_back().url = url;
    roots_.push_back(root_of(url, https));
  }
}

std::string MasterList::lookup_url(std::size_t master, VolumeId volume) const {
  return roots_[master] +
         "/dir/lookup?volumeId=" + std::to_string(static_cast<std::uint32_t>(volume));
}

void MasterList::answered(std::size_t master) {
  MasterReport& report = reports_[master];
  if (report.failing_since || !report.last_answer) {
    log_info("master answers", {{"url", report.url}});
  }
  report.last_answer = std::chrono::system_clock::now();
  report.failing_since.reset();
  report.failure.clear();
}

void MasterList::prefer(std::size_t master) {
  if (order_.front() == master) return;
  std::erase(order_, master);
  order_.insert(order_.begin(), master);
}

void MasterList::failed(std::size_t master, const std::string& why) {
  MasterReport& report = reports_[master];
  ++report.failures;
  report.failure = why;
  std::erase(order_, master);
  order_.push_back(master);
  if (report.failing_since) return;
  report.failing_since = std::chrono::system_clock::now();
  log_warning("master does not answer", {{"url", report.url}, {"error", why}});
}

}  // namespace kelp
