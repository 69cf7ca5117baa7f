import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.LinkedHashSet;
import java.util.Set;

/**
 * A program that opens a connection for each piece of work, by the service that its environment
 * names (PGSERVICEFILE, PGSERVICE), until it has been so many different users. Prints them.
 *
 * <p>Usage: java -cp postgresql.jar PgService.java USERS
 */
public class PgService {
    private static final long PATIENCE_NS = 120_000_000_000L;

    public static void main(String[] arguments) throws SQLException, InterruptedException {
        int wanted = Integer.parseInt(arguments[0]);
        String url = "jdbc:postgresql://?service=" + System.getenv("PGSERVICE");
        Set<String> users = new LinkedHashSet<>();
        long begun = System.nanoTime();
        while (users.size() < wanted && System.nanoTime() - begun < PATIENCE_NS) {
            try (Connection connection = DriverManager.getConnection(url);
                    Statement statement = connection.createStatement();
                    ResultSet rows = statement.executeQuery("select current_user from app.notes")) {
                rows.next();
                users.add(rows.getString(1));
            }
            Thread.sleep(100);
        }
        users.forEach(System.out::println);
    }
}
