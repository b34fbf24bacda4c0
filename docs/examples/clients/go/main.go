// Fills keeps a table of fills: it reads drx.prescriptions.v1 from its start, and applies each event once.
package main

import (
	"context"
	"encoding/json"
	"log"
	"math/big"
	"os"
	"strings"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

const table = `create table if not exists fills_go (source text, id text, prescription_id text, fill_number int,
	status text, quantity numeric(12, 3), fill_date date, occurred_at timestamptz, primary key (source, id))`
const insert = "insert into fills_go values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing"

type fill struct {
	Prescription *string    `avro:"prescription_id"`
	Number       int        `avro:"fill_number"` // 0 is the original fill
	Status       string     `avro:"fill_status"`
	Quantity     **big.Rat  `avro:"quantity_dispensed"` // exact; the library reads a *big.Rat that may be null as 0
	Date         *time.Time `avro:"fill_date"`
	OccurredAt   time.Time  `avro:"occurred_at"` // to the microsecond
}

func main() {
	var stack struct {
		Brokers  string `json:"bootstrap_servers"`
		Registry string `json:"registry"`
		Database string `json:"postgres"`
	}
	content, err := os.ReadFile("stack/endpoints.json")
	must(err)
	must(json.Unmarshal(content, &stack))

	ctx := context.Background()
	registry, err := sr.NewClient(sr.URLs(stack.Registry))
	must(err)
	database, err := pgx.Connect(ctx, stack.Database)
	must(err)
	_, err = database.Exec(ctx, table)
	must(err)
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(stack.Brokers, ",")...),
		kgo.ConsumerGroup("fills-go"),
		kgo.ConsumeTopics("drx.prescriptions.v1"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
	)
	must(err)
	defer client.Close()

	var prefix sr.ConfluentHeader
	schemas := map[int]avro.Schema{}
	for {
		fetches := client.PollFetches(ctx)
		must(fetches.Err())
		work, err := database.Begin(ctx)
		must(err)
		fetches.EachRecord(func(record *kgo.Record) {
			if header(record, "ce_type") != "fill.status_changed" {
				return
			}
			id, body, err := prefix.DecodeID(record.Value)
			must(err)
			if schemas[id] == nil {
				found, err := registry.SchemaByID(ctx, id)
				must(err)
				schemas[id], err = avro.Parse(found.Schema)
				must(err)
			}
			var f fill
			must(avro.Unmarshal(schemas[id], body, &f))
			var quantity *string
			if f.Quantity != nil {
				exact := (*f.Quantity).FloatString(3)
				quantity = &exact
			}
			_, err = work.Exec(ctx, insert, header(record, "ce_source"), header(record, "ce_id"), f.Prescription, f.Number,
				f.Status, quantity, f.Date, f.OccurredAt)
			must(err)
		})
		must(work.Commit(ctx))
		must(client.CommitUncommittedOffsets(ctx)) // after the work, never before
	}
}

// header returns the last header of this name: if there are several.
func header(record *kgo.Record, name string) (value string) {
	for _, each := range record.Headers {
		if each.Key == name {
			value = string(each.Value)
		}
	}
	return
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
