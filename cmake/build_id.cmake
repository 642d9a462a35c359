# Write OUTPUT, a C++ file whose yaie::build_id() is a hash of SOURCES (names relative to ROOT and
# contents) and FLAGS_HASH.
set(all "${FLAGS_HASH}")
list(SORT SOURCES)
foreach(source IN LISTS SOURCES)
  file(SHA256 ${source} hash)
  file(RELATIVE_PATH name ${ROOT} ${source})
  string(APPEND all "\n${name} ${hash}")
endforeach()
string(SHA256 id "${all}")
string(SUBSTRING ${id} 0 16 id)
file(WRITE ${OUTPUT} "namespace yaie {
const char* build_id();
const char* build_id() { return \"${id}\"; }
}
")
