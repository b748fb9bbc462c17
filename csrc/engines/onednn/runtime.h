// What the primitives of this engine share at run time.
#pragma once

struct dnnl_engine;
struct dnnl_stream;

namespace tae::onednn {

dnnl_engine* engine_handle();

// Of the calling thread.
dnnl_stream* thread_stream();

// Throws std::bad_alloc or std::runtime_error unless `status` is dnnl_success.
void check(int status, const char* what);

// While it lives, primitives made on this thread are for so many threads: oneDNN reads
// the OpenMP setting of the creating thread. Also clears the error that oneDNN's
// assembler would remember.
class CreationThreads {
 public:
  explicit CreationThreads(int threads);
  ~CreationThreads();
  CreationThreads(const CreationThreads&) = delete;
  CreationThreads& operator=(const CreationThreads&) = delete;

 private:
  int saved_;
};

}  // namespace tae::onednn
