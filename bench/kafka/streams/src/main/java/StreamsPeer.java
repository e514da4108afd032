import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtSession;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;

/**
 * Scores JSON records with ONNX Runtime inside Kafka Streams, as a careful user would: byte-array serdes, a streaming
 * parser, one direct buffer and tensor for each task, one thread for each call of the model. Arguments: KEY=VALUE;
 * "streams." and what follows goes to Kafka Streams as it is.
 */
public final class StreamsPeer {
  private static String[] fields;
  private static byte[] model;

  public static void main(String[] args) throws Exception {
    Map<String, String> o = new HashMap<>();
    Properties p = new Properties();
    for (String a : args) {
      String[] kv = a.split("=", 2);
      if (kv[0].startsWith("streams.")) {
        p.put(kv[0].substring(8), kv[1]);
      } else {
        o.put(kv[0], kv[1]);
      }
    }
    fields = o.get("fields").split(",");
    model = Files.readAllBytes(Path.of(o.get("model")));
    p.put("bootstrap.servers", o.get("brokers"));
    p.put("application.id", o.get("group"));
    p.put("state.dir", o.get("state"));
    p.put("default.key.serde", Serdes.ByteArraySerde.class);
    p.put("default.value.serde", Serdes.ByteArraySerde.class);
    p.put("auto.offset.reset", "earliest");

    Topology t = new Topology();
    t.addSource("in", o.get("in")).addProcessor("score", Scorer::new, "in").addSink("out", o.get("out"), "score");
    KafkaStreams streams = new KafkaStreams(t, p);
    streams.setUncaughtExceptionHandler(
        e -> {
          e.printStackTrace();
          return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse
              .SHUTDOWN_APPLICATION;
        });
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    streams.start();
  }

  private static final class Scorer implements Processor<byte[], byte[], byte[], byte[]> {
    private final JsonFactory json = new JsonFactory();
    private final Map<String, Integer> column = new HashMap<>();
    private final StringBuilder text = new StringBuilder(128);
    private ProcessorContext<byte[], byte[]> context;
    private OrtSession session;
    private FloatBuffer row;
    private OnnxTensor tensor;
    private Map<String, OnnxTensor> inputs;

    @Override
    public void init(ProcessorContext<byte[], byte[]> c) {
      context = c;
      for (int i = 0; i < fields.length; i++) {
        column.put(fields[i], i);
      }
      try {
        OrtEnvironment env = OrtEnvironment.getEnvironment();
        OrtSession.SessionOptions so = new OrtSession.SessionOptions();
        so.setIntraOpNumThreads(1);
        so.setInterOpNumThreads(1);
        session = env.createSession(model, so);
        row = ByteBuffer.allocateDirect(4 * fields.length).order(ByteOrder.nativeOrder()).asFloatBuffer();
        tensor = OnnxTensor.createTensor(env, row, new long[] {1, fields.length});
        inputs = Map.of("features", tensor);
      } catch (Exception e) {
        throw new IllegalStateException(e);
      }
    }

    @Override
    public void process(Record<byte[], byte[]> r) {
      try {
        for (int i = 0; i < fields.length; i++) {
          row.put(i, Float.NaN);
        }
        try (JsonParser p = json.createParser(r.value())) {
          p.nextToken();
          while (p.nextToken() == JsonToken.FIELD_NAME) {
            Integer i = column.get(p.currentName());
            JsonToken v = p.nextToken();
            if (i == null) {
              p.skipChildren();
            } else if (v.isNumeric()) {
              row.put(i, p.getFloatValue());
            }
          }
        }
        float score;
        try (OrtSession.Result out = session.run(inputs)) {
          score = ((OnnxTensor) out.get(0)).getFloatBuffer().get(0);
        }
        RecordMetadata m = context.recordMetadata().get();
        text.setLength(0);
        text.append("{\"partition\":").append(m.partition()).append(",\"offset\":").append(m.offset()).append(",\"key\":\"");
        text.append(new String(r.key(), StandardCharsets.UTF_8)).append("\",\"score\":").append(score).append('}');
        context.forward(r.withValue(text.toString().getBytes(StandardCharsets.ISO_8859_1)));
      } catch (Exception e) {
        throw new IllegalStateException(e);
      }
    }

    @Override
    public void close() {
      try {
        tensor.close();
        session.close();
      } catch (Exception e) {
        throw new IllegalStateException(e);
      }
    }
  }
}
