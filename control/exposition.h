// Prometheus' text format: families of samples. Any thread.
// https://prometheus.io/docs/instrumenting/exposition_formats/
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kelp {

class Exposition {
 public:
  /// Values may be anything: servers, peers and files have their own idea of names.
  using Labels = std::vector<std::pair<std::string_view, std::string>>;

  /// Samples that follow, up to the next one, are of this family: a counter, gauge or summary.
  void family(std::string name, std::string_view type, std::string_view help);
  void sample(const Labels& labels, std::uint64_t value) { write("", labels, value); }
  /// Nanoseconds, shown as seconds, of a summary; `of` gives the value at a quantile.
  template <std::invocable<double> Quantile>
  void summary(const Labels& labels, Quantile of, std::initializer_list<double> quantiles,
               std::uint64_t count);
  /// A family of one sample without labels.
  void single(std::string name, std::string_view type, std::string_view help, std::uint64_t value);

  std::string text() const { return out_.str(); }

 private:
  template <class Value>
  void write(std::string_view suffix, const Labels& labels, Value value) {
    write_name(suffix, labels);
    out_ << ' ' << value << '\n';
  }
  void write_name(std::string_view suffix, const Labels& labels);

  std::ostringstream out_;
  std::string name_;
};

template <std::invocable<double> Quantile>
void Exposition::summary(const Labels& labels, Quantile of, std::initializer_list<double> quantiles,
                         std::uint64_t count) {
  for (const double quantile : quantiles) {
    Labels with_quantile = labels;
    std::ostringstream shown;
    shown << quantile;
    with_quantile.emplace_back("quantile", shown.str());
    write("", with_quantile, static_cast<double>(of(quantile)) / 1e9);
  }
  write("_count", labels, count);
}

}  // namespace kelp
