// As much of a JSON reader as the test vectors need: objects, arrays, strings without escapes, and numbers as
// text.
#ifndef DIRNET_TESTS_JSON_H_
#define DIRNET_TESTS_JSON_H_

#include <cctype>
#include <string>
#include <utility>
#include <vector>

namespace dirnet {
namespace test {

struct Json {
  std::string text;  // of a string or a number
  std::vector<Json> items;
  std::vector<std::pair<std::string, Json>> fields;

  // The field of that name; an empty value if there is none.
  const Json& operator[](const std::string& name) const {
    static const Json none;
    for (const auto& field : fields) {
      if (field.first == name) return field.second;
    }
    return none;
  }
};

class JsonReader {
 public:
  explicit JsonReader(std::string text) : text_(std::move(text)) {}

  bool read(Json* value) {
    *value = parse();
    skip_space();
    return ok_ && at_ == text_.size();
  }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip_space() {
    while (std::isspace(static_cast<unsigned char>(peek())) != 0) ++at_;
  }
  bool accept(char c) {
    skip_space();
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) ok_ = false;
  }
  std::string parse_string() {
    std::string s;
    expect('"');
    while (ok_ && peek() != '"' && peek() != '\0') s += text_[at_++];
    expect('"');
    return s;
  }
  Json parse() {
    Json value;
    if (accept('{')) {
      while (ok_ && !accept('}')) {
        std::string name = (skip_space(), parse_string());
        expect(':');
        value.fields.emplace_back(std::move(name), parse());
        accept(',');
      }
    } else if (accept('[')) {
      while (ok_ && !accept(']')) {
        value.items.push_back(parse());
        accept(',');
      }
    } else if (peek() == '"') {
      value.text = parse_string();
    } else {
      while (std::isalnum(static_cast<unsigned char>(peek())) != 0 || peek() == '-' || peek() == '+' ||
             peek() == '.') {
        value.text += text_[at_++];
      }
      if (value.text.empty()) ok_ = false;
    }
    return value;
  }

  std::string text_;
  size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace test
}  // namespace dirnet

#endif  // DIRNET_TESTS_JSON_H_
