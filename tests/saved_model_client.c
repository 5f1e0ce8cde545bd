/* A client of a SavedModel without Python: runs a signature from strings to strings.

   saved_model_client DIRECTORY INPUT OUTPUT INDEX [LIBRARY...]

   INPUT and OUTPUT are operations of the graph as the signature names them, INDEX is which of OUTPUT's values is meant,
   each LIBRARY holds further operations. Texts come on standard input and answers go to standard output, each as a line
   with the number of its bytes and then the bytes, so that every byte can be in them. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

static void stop_unless_ok(const TF_Status *status, const char *what) {
  if (TF_GetCode(status) != TF_OK) {
    fprintf(stderr, "%s: %s\n", what, TF_Message(status));
    exit(1);
  }
}

static void release(void *data, size_t length, void *unused) {
  (void)unused;
  TF_TString *texts = data;
  for (size_t i = 0; i < length / sizeof(TF_TString); i++) TF_TString_Dealloc(&texts[i]);
  free(data);
}

/* All texts of standard input as a tensor [batch]. */
static TF_Tensor *read_texts(void) {
  TF_TString *texts = NULL;
  int64_t count = 0;
  size_t bytes;
  while (scanf("%zu", &bytes) == 1 && getchar() == '\n') {
    char *buffer = malloc(bytes + 1);
    texts = realloc(texts, (count + 1) * sizeof(TF_TString));
    if (!buffer || !texts || fread(buffer, 1, bytes, stdin) != bytes) {
      fprintf(stderr, "a text has fewer than its %zu bytes\n", bytes);
      exit(1);
    }
    TF_TString_Init(&texts[count]);
    TF_TString_Copy(&texts[count++], buffer, bytes);
    free(buffer);
  }
  return TF_NewTensor(TF_STRING, &count, 1, texts, count * sizeof(TF_TString), release, NULL);
}

static TF_Output output_of(TF_Graph *graph, const char *name, int index) {
  TF_Output output = {TF_GraphOperationByName(graph, name), index};
  if (!output.oper) {
    fprintf(stderr, "the graph has no operation %s\n", name);
    exit(1);
  }
  return output;
}

int main(int count, char **arguments) {
  if (count < 5) {
    fprintf(stderr, "usage: %s DIRECTORY INPUT OUTPUT INDEX [LIBRARY...]\n", arguments[0]);
    return 2;
  }
  TF_Status *status = TF_NewStatus();
  for (int i = 5; i < count; i++) {
    TF_LoadLibrary(arguments[i], status);
    stop_unless_ok(status, arguments[i]);
  }
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags, 1, graph, NULL, status);
  stop_unless_ok(status, arguments[1]);

  TF_Output input = output_of(graph, arguments[2], 0), output = output_of(graph, arguments[3], atoi(arguments[4]));
  TF_Tensor *texts = read_texts(), *answers = NULL;
  TF_SessionRun(session, NULL, &input, &texts, 1, &output, &answers, 1, NULL, 0, NULL, status);
  stop_unless_ok(status, "run");

  const TF_TString *strings = TF_TensorData(answers);
  for (int64_t i = 0; i < TF_TensorElementCount(answers); i++) {
    printf("%zu\n", TF_TString_GetSize(&strings[i]));
    fwrite(TF_TString_GetDataPointer(&strings[i]), 1, TF_TString_GetSize(&strings[i]), stdout);
  }
  TF_DeleteTensor(answers);
  TF_DeleteTensor(texts);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
