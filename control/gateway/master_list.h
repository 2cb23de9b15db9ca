// The masters: in which order they are asked, and how each has fared. Gateway thread only.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "control/gateway/gateway_report.h"
#include "shm_ring/file_id.h"

namespace kelp {

class MasterList {
 public:
  /// Of "host:port" or URLs; `https` is for those without a scheme.
  MasterList(const std::vector<std::string>& urls, bool https);

  /// Places in reports(): whom to ask first, next, ... Those that failed lately come last.
  const std::vector<std::size_t>& order() const noexcept { return order_; }
  std::string lookup_url(std::size_t master, VolumeId volume) const;

  void asked(std::size_t master) { ++reports_[master].asked; }
  void answered(std::size_t master);
  /// From now on the first to be asked, until it fails.
  void prefer(std::size_t master);
  void failed(std::size_t master, const std::string& why);

  const std::vector<MasterReport>& reports() const noexcept { return reports_; }

 private:
  std::vector<MasterReport> reports_;
  std::vector<std::string> roots_;  // "http://host:port"
  std::vector<std::size_t> order_;
};

}  // namespace kelp
